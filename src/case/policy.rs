//! What happens to a stuck recipient (pure): who is asked about it, what may be chosen, and what is done unasked.

use super::{Action, Actor, Asked, Failure, RecipientState};
use crate::config::{Offer, Unasked};
use crate::domain::Domain;

/// What is known about a stuck recipient before anything is decided.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Why it is stuck.
    pub failure: Failure,
    /// Who is asked about the message.
    pub asked: Asked,
    /// What happens when nobody is.
    pub unasked: Unasked,
    /// The domain on the list of mandatory ones that the recipient's domain is within.
    pub mandatory: Option<&'a Domain>,
    /// Has the sender said to send to this recipient unencrypted when it fails like this?
    pub consent: bool,
}

/// Why a verdict is as it is; the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// The failure has nothing to do with TLS.
    NotTls,
    /// Something on our side is broken.
    LocalFault,
    /// It is not known yet whether plain text may be offered.
    Unjudged,
    /// The recipient's domain must be reached over TLS.
    Mandatory,
    /// The sender is not one who is asked.
    Unasked,
    /// The failure is one that must not, or may not by the configuration, be answered with plain text.
    MayNotGo,
    /// The sender has decided before.
    Consent,
    /// The sender is asked, and may choose everything.
    Asked,
}

/// What the policy says of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The state that the recipient starts in.
    pub state: RecipientState,
    /// May it go unencrypted, if somebody who may decide wants that?
    pub may_send: bool,
    /// What is done at once, and in whose name.
    pub action: Option<(Action, Actor)>,
    /// Why.
    pub ground: Ground,
}

/// Judges one recipient. Whatever the configuration says: local faults and failures that have nothing to do with TLS are
/// not the sender's matter, a message under REQUIRETLS is never sent in plain text, nothing is to a mandatory
/// domain or against a policy, nothing is done that was not judged, nothing is sent after a certificate failure unless somebody has looked at it, and nothing is deleted without
/// anybody being told but where the configuration says "delete".
pub fn judge(about: &Circumstances<'_>, offer: &Offer) -> Verdict {
    let failure = about.failure;
    let may_send =
        about.mandatory.is_none() && failure.can_be_offered() && offer.failures.contains(&failure);
    let verdict = |state, action, ground| Verdict {
        state,
        may_send,
        action,
        ground,
    };
    if !failure.is_senders_matter() {
        let ground = if failure == Failure::LocalFault {
            Ground::LocalFault
        } else {
            Ground::NotTls
        };
        return verdict(RecipientState::NotOffered, None, ground);
    }
    let open = RecipientState::Open;
    if failure == Failure::Unjudged {
        // The sender hears of it at once; but nothing is done, and nobody is asked who would not be when it is judged.
        let asks = about.asked == Asked::Sender && about.mandatory.is_none() && !about.consent;
        let state = if asks {
            open
        } else {
            RecipientState::NotOffered
        };
        return verdict(state, None, Ground::Unjudged);
    }
    let unseen = may_send && may_go_unseen(failure);
    if about.asked == Asked::Nobody {
        let action = match about.unasked {
            Unasked::Release if unseen => Action::Send,
            Unasked::Delete => Action::Delete,
            Unasked::Keep | Unasked::Tell | Unasked::Release => Action::Keep,
        };
        let ground = if about.mandatory.is_some() {
            Ground::Mandatory
        } else {
            Ground::Unasked
        };
        return verdict(open, Some((action, Actor::Policy)), ground);
    }
    if about.mandatory.is_some() {
        let delete = Some((Action::Delete, Actor::Mandatory));
        return verdict(open, delete, Ground::Mandatory);
    }
    if !may_send {
        return verdict(open, None, Ground::MayNotGo);
    }
    if about.consent && unseen {
        let send = Some((Action::Send, Actor::Consent));
        return verdict(open, send, Ground::Consent);
    }
    verdict(open, None, Ground::Asked)
}

/// Does a failure that is seen later count in the place of an earlier one about which somebody is asked? The newest one
/// does: what the earlier one allowed is over, and what it forbade, too. But what has nothing to do with TLS, is our own
/// fault, or could not be judged says nothing about the recipient's server, and REQUIRETLS is the message's own demand.
pub fn supersedes(later: Failure, earlier: Failure) -> bool {
    later.is_senders_matter()
        && later != Failure::Unjudged
        && (earlier != Failure::RequireTls || later == Failure::RequireTls)
}

/// May mail that fails like this go unencrypted without somebody looking at it: by a remembered choice, or as the
/// configuration says? Not after a certificate failure: someone may be listening, and a certificate that is wrong today
/// says nothing about one that is wrong tomorrow.
pub fn may_go_unseen(failure: Failure) -> bool {
    failure.can_be_offered() && failure != Failure::Certificate
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: &[Failure] = Failure::ALL;

    fn offer(failures: &[Failure]) -> Offer {
        Offer {
            failures: failures.to_vec(),
        }
    }

    fn about(failure: Failure) -> Circumstances<'static> {
        Circumstances {
            failure,
            asked: Asked::Sender,
            unasked: Unasked::Keep,
            mandatory: None,
            consent: false,
        }
    }

    #[test]
    fn only_what_is_configured_and_safe_may_go_unencrypted() {
        for failure in Failure::ALL {
            assert!(!judge(&about(*failure), &offer(&[])).may_send);
            let verdict = judge(&about(*failure), &offer(EVERYTHING));
            let expected = match failure {
                Failure::NotOffered
                | Failure::Refused
                | Failure::HandshakeFailed
                | Failure::Certificate => (RecipientState::Open, true),
                Failure::RequireTls | Failure::Policy | Failure::Unjudged => {
                    (RecipientState::Open, false)
                }
                Failure::LocalFault | Failure::NotTls => (RecipientState::NotOffered, false),
            };
            assert_eq!((verdict.state, verdict.may_send), expected, "{failure}");
            assert_eq!(verdict.action, None);
        }
    }

    #[test]
    fn a_mandatory_domain_leaves_no_choice() {
        let domain: Domain = "bank.test".parse().unwrap();
        for failure in Failure::ALL {
            for (asked, consent) in [
                (Asked::Sender, false),
                (Asked::Sender, true),
                (Asked::Nobody, true),
            ] {
                for unasked in [
                    Unasked::Keep,
                    Unasked::Release,
                    Unasked::Delete,
                    Unasked::Tell,
                ] {
                    let about = Circumstances {
                        asked,
                        unasked,
                        consent,
                        mandatory: Some(&domain),
                        ..about(*failure)
                    };
                    let verdict = judge(&about, &offer(EVERYTHING));
                    assert!(!verdict.may_send);
                    let action = verdict.action.map(|(action, _)| action);
                    assert_ne!(action, Some(Action::Send));
                    let expected = match asked {
                        _ if !failure.is_senders_matter() || *failure == Failure::Unjudged => None,
                        Asked::Sender => Some((Action::Delete, Actor::Mandatory)),
                        // Who is not told must not lose mail: only the admin's own word deletes it.
                        Asked::Nobody if unasked == Unasked::Delete => {
                            Some((Action::Delete, Actor::Policy))
                        }
                        Asked::Nobody => Some((Action::Keep, Actor::Policy)),
                    };
                    assert_eq!(verdict.action, expected);
                }
            }
        }
    }

    #[test]
    fn mail_of_others_is_kept_unless_configured_otherwise() {
        for (unasked, failure, expected) in [
            (Unasked::Keep, Failure::NotOffered, Some(Action::Keep)),
            (Unasked::Tell, Failure::NotOffered, Some(Action::Keep)),
            (Unasked::Release, Failure::NotOffered, Some(Action::Send)),
            (Unasked::Release, Failure::Certificate, Some(Action::Keep)),
            (Unasked::Release, Failure::RequireTls, Some(Action::Keep)),
            (Unasked::Release, Failure::Policy, Some(Action::Keep)),
            (Unasked::Release, Failure::Unjudged, None),
            (Unasked::Delete, Failure::Unjudged, None),
            (Unasked::Delete, Failure::Certificate, Some(Action::Delete)),
            (Unasked::Delete, Failure::NotTls, None),
            (Unasked::Delete, Failure::LocalFault, None),
        ] {
            let about = Circumstances {
                asked: Asked::Nobody,
                unasked,
                consent: true,
                ..about(failure)
            };
            let verdict = judge(&about, &offer(&[Failure::NotOffered]));
            assert_eq!(
                verdict.action,
                expected.map(|action| (action, Actor::Policy))
            );
        }
    }

    #[test]
    fn nothing_is_released_unseen_after_a_certificate_failure() {
        for failure in Failure::ALL {
            let about = Circumstances {
                asked: Asked::Nobody,
                unasked: Unasked::Release,
                ..about(*failure)
            };
            let verdict = judge(&about, &offer(EVERYTHING));
            let released = verdict.action == Some((Action::Send, Actor::Policy));
            let may = matches!(
                failure,
                Failure::NotOffered | Failure::Refused | Failure::HandshakeFailed
            );
            assert_eq!(released, may, "{failure}");
            // An admin may, by command.
            assert_eq!(verdict.may_send, may || *failure == Failure::Certificate);
        }
    }

    #[test]
    fn the_newest_failure_counts_and_hides_no_demand() {
        for earlier in Failure::ALL.iter().copied() {
            for later in [Failure::NotTls, Failure::LocalFault, Failure::Unjudged] {
                assert!(!supersedes(later, earlier), "{later} after {earlier}");
            }
            for later in [Failure::Certificate, Failure::Policy, Failure::NotOffered] {
                let counts = earlier != Failure::RequireTls;
                assert_eq!(
                    supersedes(later, earlier),
                    counts,
                    "{later} after {earlier}"
                );
            }
            assert!(supersedes(Failure::RequireTls, earlier));
        }
    }

    #[test]
    fn a_remembered_choice_never_covers_certificates() {
        for failure in Failure::ALL {
            let about = Circumstances {
                consent: true,
                ..about(*failure)
            };
            let sends = judge(&about, &offer(EVERYTHING)).action.is_some();
            let may = matches!(
                failure,
                Failure::NotOffered | Failure::Refused | Failure::HandshakeFailed
            );
            assert_eq!(sends, may, "{failure}");
            assert_eq!(judge(&about, &offer(&[])).action, None);
        }
    }
}
