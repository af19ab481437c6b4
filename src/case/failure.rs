//! The kinds of delivery failure that PostTLS tells apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a recipient was deferred. [`crate::notice::classify`] decides it; policy and texts build on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The server did not offer STARTTLS.
    NotOffered,
    /// The server offered STARTTLS and answered the command with an error.
    Refused,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// TLS worked, but the server's certificate was not trusted or did not match: someone may be listening.
    Certificate,
    /// Our own TLS engine, configuration or DNS failed: no sender can answer that.
    LocalFault,
    /// The sender's system demanded TLS for this message (REQUIRETLS, RFC 8689): never to be offered in plain text.
    RequireTls,
    /// Nothing to do with TLS: greylisting, refused connection, full mailbox.
    NotTls,
}

impl Failure {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 7] = [
        Self::NotOffered,
        Self::Refused,
        Self::HandshakeFailed,
        Self::Certificate,
        Self::LocalFault,
        Self::RequireTls,
        Self::NotTls,
    ];

    /// The name in configuration, store and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotOffered => "not-offered",
            Self::Refused => "refused",
            Self::HandshakeFailed => "handshake-failed",
            Self::Certificate => "certificate",
            Self::LocalFault => "local-fault",
            Self::RequireTls => "require-tls",
            Self::NotTls => "not-tls",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of failure that PostTLS knows")]
pub struct BadFailure(String);

impl FromStr for Failure {
    type Err = BadFailure;

    fn from_str(text: &str) -> Result<Self, BadFailure> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| BadFailure(text.to_owned()))
    }
}
