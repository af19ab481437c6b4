//! The token of a link: nothing opens anything but what was signed, and what was signed does. The input is taken for a
//! token, and, where it is long enough, for an ID, an expiry and a damage.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use posttls::case::{CaseId, ConsentId, SenderId};
use posttls::link::{KEY_OCTETS, Keys, Linked};

/// The key file, first with the one key and then with the other in front: either signs, both verify.
static KEYS: LazyLock<[Keys; 2]> = LazyLock::new(|| {
    let lines = [
        Keys::line(1, &[7; KEY_OCTETS]),
        Keys::line(513, &[9; KEY_OCTETS]),
    ];
    let path = std::env::temp_dir().join(format!("posttls-fuzz-key-{}", std::process::id()));
    [[0, 1], [1, 0]].map(|order| {
        std::fs::write(&path, order.map(|line| lines[line].as_str()).concat()).expect("a key file");
        let keys = Keys::load(&path).expect("two keys");
        std::fs::remove_file(&path).expect("the key file is ours");
        keys
    })
});

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    only_signed::<CaseId>(&text);
    only_signed::<SenderId>(&text);
    only_signed::<ConsentId>(&text);
    if let Some((numbers, damage)) = input.split_first_chunk::<16>() {
        let number = |at| i64::from_be_bytes(std::array::from_fn(|index| numbers[at + index]));
        let (id, expiry) = (number(0), number(8));
        round_trip(CaseId(id), expiry, damage);
        round_trip(SenderId(id), expiry, damage);
        round_trip(ConsentId(id), expiry, damage);
    }
});

/// If it opens something, it is to the last character what was signed for that.
fn only_signed<T: Linked>(token: &str) {
    let [keys, others] = &*KEYS;
    let Ok(id) = keys.verify::<T>(token, i64::MIN) else {
        return;
    };
    let octets = URL_SAFE_NO_PAD
        .decode(token)
        .expect("a token that was verified");
    let expiry = i64::from_be_bytes(std::array::from_fn(|index| octets[11 + index]));
    assert!(
        token == keys.sign(id, expiry) || token == others.sign(id, expiry),
        "forged: {token}"
    );
    let late = expiry
        .checked_add(1)
        .map(|now| keys.verify::<T>(token, now));
    assert!(
        late.is_none_or(|result| result.is_err()),
        "expired, and it opens"
    );
}

fn round_trip<T: Linked>(id: T, expiry: i64, damage: &[u8]) {
    let [keys, others] = &*KEYS;
    for token in [keys.sign(id, expiry), others.sign(id, expiry)] {
        let opened = keys.verify::<T>(&token, expiry).map(Linked::number);
        assert_eq!(opened, Ok(id.number()));
        let mut octets = URL_SAFE_NO_PAD.decode(&token).expect("our own token");
        for (octet, change) in octets.iter_mut().zip(damage) {
            *octet ^= change;
        }
        let changed = URL_SAFE_NO_PAD.encode(octets);
        assert!(
            changed == token || keys.verify::<T>(&changed, i64::MIN).is_err(),
            "a damaged token opens"
        );
        assert!(
            keys.verify::<T>(&token[..token.len() - 1], i64::MIN)
                .is_err()
        );
    }
}
