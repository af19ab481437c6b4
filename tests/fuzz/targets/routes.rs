//! From request line and `X-Forwarded-For` to what is asked and who asks. The input: method, target, and values of the
//! header field, a line each.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use posttls::web::routes::{Route, client, route};

const PROXY: &str = "192.0.2.1";

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let method = lines.next().unwrap_or_default();
    let target = lines.next().unwrap_or_default();
    asked(method, target);
    asking(&lines.collect::<Vec<_>>());
});

fn asked(method: &str, target: &str) {
    let found = route(method, target);
    let (token, letter) = match &found {
        Route::Show { token, .. } | Route::Decide { token } => (token, "c"),
        Route::ShowSender { token, page } | Route::DecideSender { token, page } => {
            assert!(*page > 0);
            (token, "s")
        }
        Route::ShowConsent { token } | Route::EndConsent { token } => (token, "r"),
        Route::TooLong => return assert!(target.len() > 2048),
        _ => return,
    };
    let acts = matches!(
        found,
        Route::Decide { .. } | Route::DecideSender { .. } | Route::EndConsent { .. }
    );
    assert_eq!(acts, method == "POST", "{method} {target}");
    assert!(acts || ["GET", "HEAD"].contains(&method));
    assert!((10..=200).contains(&token.len()));
    assert!(
        token
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
    );
    let path = target.split('?').next();
    assert_eq!(
        path,
        Some(format!("/{letter}/{token}").as_str()),
        "the path is not exactly the link"
    );
}

fn asking(forwarded_for: &[&str]) {
    let proxy: IpAddr = PROXY.parse().expect("an address");
    let stranger: IpAddr = "::ffff:198.51.100.7".parse().expect("an address");
    let values = || forwarded_for.iter().copied();
    assert_eq!(
        client(stranger, values(), &[proxy]).to_string(),
        "198.51.100.7"
    );
    assert_eq!(client(proxy, values(), &[]), proxy);
    let found = client(proxy, values(), &[proxy]);
    // With or without a port.
    let named = |value: &str| {
        let value = value.trim();
        let address = value.parse::<IpAddr>().ok();
        let both = value.parse::<std::net::SocketAddr>().ok();
        let bare = value.trim_start_matches('[').trim_end_matches(']');
        let bare = bare.parse::<IpAddr>().ok();
        let all = [address, both.map(|both| both.ip()), bare];
        all.iter().flatten().any(|one| one.to_canonical() == found)
    };
    let last = values().flat_map(|value| value.split(',')).last();
    assert!(found == proxy || last.is_some_and(named));
}
