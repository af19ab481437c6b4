//! What Postfix's words do not tell of a failure: whose server it was, and whether plain text may be offered at all.
//!
//! "TLS is required, but was not offered" is what Postfix says of a server at our own level, of one whose domain demands
//! TLS, of a message sent with REQUIRETLS, and of a content filter of our own. Only root can find out which: the mover
//! looks ([`crate::mover::Ways`]), all others ask it ([`wire`]). Whoever judges a failure judges a [`Standing`] with it.

mod host;
#[cfg(feature = "programs")]
pub mod locks;
#[cfg(feature = "programs")]
pub mod wire;

use serde::{Deserialize, Serialize};

use crate::case::Failure;

pub use host::Host;

/// What stands between a recipient and plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing but our own level.
    Free,
    /// TLS is demanded for this way: the level, and where that stands.
    Demanded(String),
    /// The message was sent with REQUIRETLS (RFC 8689).
    RequireTls,
    /// It failed at a hop of our own: which setting leads there, and what to do.
    Ours(String),
    /// That could not be found out (yet), and why.
    Unknown(String),
}

impl Standing {
    /// Nobody was asked yet.
    pub fn unasked() -> Self {
        Self::Unknown("not asked yet".to_owned())
    }

    /// The kind of a failure whose words alone say `words`.
    pub fn kind(&self, words: Failure) -> Failure {
        // What is ours already, or has nothing to do with TLS, needs nobody to be asked.
        if !words.needs_standing() {
            return words;
        }
        // Words that hint at a policy, and there is none.
        if words == Failure::Policy && matches!(self, Self::Free | Self::Ours(_)) {
            return Failure::NotTls;
        }
        match self {
            Self::Free => words,
            Self::Demanded(_) => Failure::Policy,
            Self::RequireTls => Failure::RequireTls,
            Self::Ours(_) => Failure::LocalFault,
            Self::Unknown(_) => Failure::Unjudged,
        }
    }

    /// What is to be shown with what Postfix or a server said.
    pub fn remark(&self) -> Option<String> {
        match self {
            Self::Free => None,
            Self::Demanded(what) => Some(format!("TLS is demanded: {what}")),
            Self::RequireTls => Some("the message was sent with REQUIRETLS".to_owned()),
            Self::Ours(what) => Some(what.clone()),
            Self::Unknown(why) => Some(format!("not judged yet: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_never_makes_anything_weaker() {
        let text = String::new;
        let every = [
            Standing::Free,
            Standing::Demanded(text()),
            Standing::RequireTls,
            Standing::Ours(text()),
            Standing::Unknown(text()),
        ];
        for failure in Failure::ALL.iter().copied() {
            for standing in &every {
                let kind = standing.kind(failure);
                assert!(failure.needs_standing() || kind == failure);
                assert_eq!(
                    kind.can_be_offered(),
                    failure.can_be_offered() && *standing == Standing::Free,
                    "{failure} {standing:?}"
                );
            }
        }
    }

    #[test]
    fn words_that_hint_at_a_policy_mean_one_only_where_there_is_one() {
        let words = Failure::Policy;
        let demanded = Standing::Demanded("secure".to_owned());
        assert_eq!(demanded.kind(words), Failure::Policy);
        assert_eq!(Standing::Free.kind(words), Failure::NotTls);
        assert_eq!(Standing::unasked().kind(words), Failure::Unjudged);
    }
}
