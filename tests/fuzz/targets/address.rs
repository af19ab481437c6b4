//! Addresses, domains, and texts from strangers made safe to show. A text is the whole input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use posttls::address::Address;
use posttls::domain::Domain;
use posttls::notice::original;
use posttls::postfix::QueueId;
use posttls::text::{readable, shown};

fuzz_target!(|input: &[u8]| {
    let _ = original(input);
    let text = String::from_utf8_lossy(input);
    for line in [shown(&text), readable(&text, 50)] {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    for address in [text.parse::<Address>(), Address::from_quoted(&text)]
        .into_iter()
        .flatten()
    {
        assert!(!address.as_str().is_empty() && !address.as_str().chars().any(char::is_control));
        // Only local parts are quoted: no domain that mail could go to has quotes, backslashes or blanks.
        let domain = address.domain();
        let odd = |c: char| c == '"' || c == '\\' || c.is_whitespace();
        if !domain.contains(odd) {
            let again = Address::from_quoted(&address.quoted());
            assert_eq!(again.as_ref(), Ok(&address));
        }
        assert_eq!(address.as_str().parse(), Ok(address.clone()));
        if let Some(domain) = Domain::of(&address) {
            same(&domain);
        }
        let _ = Domain::nearest(&address);
    }
    if let Ok(domain) = text.parse::<Domain>() {
        same(&domain);
    }
    if let Ok(id) = text.parse::<QueueId>() {
        assert!(
            id.as_str()
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric())
        );
        assert!(
            id.hash_characters()
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric())
        );
    }
});

/// A domain is its ASCII form, and a form of it in letters leads back to it.
fn same(domain: &Domain) {
    assert!(domain.as_str().is_ascii() && !domain.as_str().contains(['/', ' ', '@']));
    assert_eq!(domain.as_str().parse().as_ref(), Ok(domain));
    if let Some(letters) = domain.unicode() {
        assert_eq!(letters.parse().as_ref(), Ok(domain), "{letters}");
    }
    assert!(domain.is_within(domain) && !domain.is_below(domain));
}
