//! The reader of Postfix's defer and bounce logs. A log is the whole input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use posttls::notice::classify_deferral;
use posttls::postfix::{Deferral, deferrals};

fuzz_target!(|log: &[u8]| {
    let whole: Vec<Deferral> = deferrals(log).collect();
    for one in &whole {
        assert!(!one.recipient.as_str().is_empty());
        assert!(!one.recipient.as_str().chars().any(char::is_control));
        let texts = [
            Some(&one.status),
            Some(&one.action),
            Some(&one.reason),
            one.remote_mta.as_ref(),
        ];
        let words = one.diagnostic.iter().flat_map(|(kind, text)| [kind, text]);
        for text in texts.into_iter().flatten().chain(words) {
            assert!(
                !text.chars().any(char::is_control) && text.chars().count() <= 1000,
                "{text:?}"
            );
        }
        let _ = classify_deferral(one);
    }
    // Postfix appends while we read: what is there already never changes its meaning.
    for cut in [log.len() / 3, log.len() / 2, log.len().saturating_sub(1)] {
        let part: Vec<Deferral> = deferrals(&log[..cut]).collect();
        assert_eq!(part, whole[..part.len()]);
    }
    let finished = [log, b"\n\n"].concat();
    let finished: Vec<Deferral> = deferrals(&finished).collect();
    assert_eq!(finished[..whole.len()], whole);
    assert!(finished.len() <= whole.len() + 1);
});
