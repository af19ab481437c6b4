//! The configuration: one TOML file, whose shipped example is also the embedded default, and the environment.
//!
//! Every key of the example is known, every other one is an error with a suggestion and a line number. Reading is
//! apart from meaning: this module knows names, types and ranges, and touches nothing that a key names.

mod environment;
mod load;
mod ranges;
mod read;
mod senders;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use crate::address::Address;
use crate::case::Failure;
use crate::domain::Domain;
use crate::language::Language;

pub use load::ConfigError;
pub use senders::{Automatic, SenderPattern, Senders, Unasked};

/// The shipped example, with the default of every key.
pub const DEFAULT_FILE: &str = include_str!("../../postfix-conf/posttls.toml");

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The instance with mandatory TLS.
    pub encrypt: Encrypt,
    /// The instance with opportunistic TLS.
    pub may: May,
    /// The database.
    pub store: Store,
    /// Signed links.
    pub link: Link,
    /// The web child.
    pub http: Http,
    /// The mover.
    pub mover: Mover,
    /// The mail to the sender.
    pub notification: Notification,
    /// Who is asked.
    pub senders: Senders,
    /// Choices that are remembered.
    pub remember: Remember,
    /// When senders are reminded.
    pub reminders: Reminders,
    /// How much mail senders get.
    pub limits: Limits,
    /// What may be offered.
    pub offer: Offer,
    /// How often the queue is looked at.
    pub sweep: Sweep,
    /// How long personal data is kept.
    pub retention: Retention,
    /// Where the log goes.
    pub log: Log,
}

/// `[encrypt]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encrypt {
    /// Its configuration directory, as for `postfix -c`.
    pub config_dir: PathBuf,
    /// Servers on this host that are somebody else's.
    pub remote_hosts: Vec<String>,
}

/// A Postfix instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its configuration directory, as for `postfix -c`.
    pub config_dir: PathBuf,
}

/// The instance that may send in plain text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct May {
    /// Its configuration directory.
    pub config_dir: PathBuf,
    /// Parameters, and services such as `slow/unix`, that are meant to differ from the encrypt instance's.
    pub own_settings: Vec<String>,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The database file.
    pub path: PathBuf,
}

/// `[link]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// File of signing keys.
    pub key_file: PathBuf,
    /// What links begin with; its path does not end in a slash.
    pub base_url: Url,
    /// Days that a link outlives the message.
    pub valid_days: u16,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// User of the web child.
    pub web_user: String,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Overriding page templates; empty for none.
    pub template_dir: PathBuf,
}

/// `[mover]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mover {
    /// Directory of lock and control socket.
    pub run_dir: PathBuf,
    /// Seconds that a click waits for a delivery under way.
    pub delivery_wait_seconds: u64,
    /// Decisions carried out at the same time.
    pub workers: usize,
}

/// `[notification]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notification {
    /// Display name of the From header.
    pub from_name: String,
    /// Address of the From header.
    pub from_address: Address,
    /// Template of the Subject header of the notification; empty for the one of the sender's language.
    pub subject: String,
    /// Where replies go; `None`: to [`Notification::from_address`].
    #[serde(deserialize_with = "read::optional_address")]
    pub reply_to: Option<Address>,
    /// Whom senders ask.
    pub admin_contact: String,
    /// Submission server.
    pub smtp_host: String,
    /// Its port.
    pub smtp_port: u16,
    /// How the connection is secured.
    pub smtp_tls: SmtpTls,
    /// User name for AUTH; empty for none.
    pub smtp_user: String,
    /// Password for AUTH.
    pub smtp_password: String,
    /// Seconds until that server is taken for dead.
    pub smtp_timeout_seconds: u64,
    /// Overriding mail templates; empty for none.
    pub template_dir: PathBuf,
    /// Language of mails to senders whose domain is not in [`Notification::languages`].
    pub language: Language,
    /// Languages by the sender's domain.
    pub languages: BTreeMap<Domain, Language>,
    /// Tell senders that a message was delivered after all?
    pub tell_delivered: bool,
    /// Hours after which a sender hears that released mail still waits; 0 for never.
    pub tell_waiting_hours: u32,
    /// Whom mails to the admin go to.
    #[serde(deserialize_with = "read::optional_address")]
    pub admin_address: Option<Address>,
}

impl Notification {
    /// The language of mails to this address: that of the nearest domain listed, or the usual one.
    pub fn language_of(&self, address: &Address) -> Language {
        let Some(domain) = Domain::of(address) else {
            return self.language;
        };
        let listed = domain.and_parents().find_map(|name| {
            let mut all = self.languages.iter();
            all.find(|(one, _)| one.as_str() == name)
        });
        listed.map_or(self.language, |(_, language)| *language)
    }
}

/// How the connection to the submission server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmtpTls {
    /// Plain text.
    None,
    /// STARTTLS if the server offers it, whatever its certificate.
    Opportunistic,
    /// STARTTLS with a certificate in order, or nothing.
    Required,
    /// TLS from the first octet (RFC 8314).
    Wrapper,
}

/// `[offer]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Failures for which sending unencrypted is a choice.
    pub failures: Vec<Failure>,
}

/// `[remember]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remember {
    /// The most days that a choice is remembered; 0 for never.
    pub days: u16,
}

/// `[reminders]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reminders {
    /// Hours after the notification, ascending.
    pub after_hours: Vec<u32>,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Notifications to a sender before they are gathered.
    pub first: u32,
    /// Minutes for which they are gathered.
    pub window_minutes: u32,
    /// The most mails to one sender in an hour.
    pub per_sender_hour: u32,
    /// The most mails to all senders in an hour.
    pub per_hour: u32,
}

/// `[sweep]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Seconds between two sweeps.
    pub seconds: u32,
    /// Minutes between two looks through the whole queue; 0 for never.
    pub census_minutes: u32,
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Days after which a closed case loses its personal data; 0 for never.
    pub days: u16,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `syslog`, `stderr` or an absolute path.
    pub target: String,
}

impl Config {
    /// The names of settings that differ from `other` and that a running daemon can't change.
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let compared = [
            ("encrypt", self.encrypt == other.encrypt),
            (
                "may.config_dir",
                self.may.config_dir == other.may.config_dir,
            ),
            ("store", self.store == other.store),
            ("http.listen", self.http.listen == other.http.listen),
            ("http.web_user", self.http.web_user == other.http.web_user),
            ("mover.run_dir", self.mover.run_dir == other.mover.run_dir),
            ("mover.workers", self.mover.workers == other.mover.workers),
            ("log", self.log == other.log),
        ];
        let changed = compared.into_iter().filter(|(_, same)| !same);
        changed.map(|(name, _)| name).collect()
    }

    /// The address of a case's page.
    pub fn case_url(&self, token: &str) -> String {
        self.url("c", token)
    }

    /// The address of the page with all cases of a sender.
    pub fn sender_url(&self, token: &str) -> String {
        self.url("s", token)
    }

    /// The address of the page on which a remembered choice is revoked.
    pub fn consent_url(&self, token: &str) -> String {
        self.url("r", token)
    }

    /// The path that all addresses of pages begin with, without a slash at its end; empty for none.
    pub fn base_path(&self) -> &str {
        self.link.base_url.path().trim_end_matches('/')
    }

    fn url(&self, page: &str, token: &str) -> String {
        let base = self.link.base_url.as_str().trim_end_matches('/');
        format!("{base}/{page}/{token}")
    }
}

#[cfg(test)]
mod tests;
