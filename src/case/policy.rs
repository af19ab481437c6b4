//! What a sender is asked about (pure).

use super::{Failure, RecipientState};
use crate::config::Offer;

/// What the policy says of a recipient that failed with `failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The state that the recipient starts in.
    pub state: RecipientState,
    /// May the sender choose to send unencrypted?
    pub may_send: bool,
}

/// Judges one failure. Whatever the configuration says, local faults and failures that have nothing to do with TLS are
/// not the sender's matter, and a message under REQUIRETLS is never offered in plain text.
pub fn judge(failure: Failure, offer: &Offer) -> Verdict {
    let state = if failure.is_senders_matter() {
        RecipientState::Open
    } else {
        RecipientState::NotOffered
    };
    Verdict {
        state,
        may_send: failure.can_be_offered() && offer.failures.contains(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_configured_and_safe_may_go_unencrypted() {
        let everything = Offer {
            failures: Failure::ALL.to_vec(),
        };
        let nothing = Offer {
            failures: Vec::new(),
        };
        for failure in Failure::ALL {
            assert!(!judge(*failure, &nothing).may_send);
            let verdict = judge(*failure, &everything);
            let expected = match failure {
                Failure::NotOffered
                | Failure::Refused
                | Failure::HandshakeFailed
                | Failure::Certificate => (RecipientState::Open, true),
                Failure::RequireTls => (RecipientState::Open, false),
                Failure::LocalFault | Failure::NotTls => (RecipientState::NotOffered, false),
            };
            assert_eq!((verdict.state, verdict.may_send), expected, "{failure}");
        }
    }
}
