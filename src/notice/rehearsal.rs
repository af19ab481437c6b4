//! `posttls-pipe --check`: what the hook would do with a notice, without doing it. `posttls check` runs the program of
//! master.cf so, as its user: that something is there under its name proves nothing.
//!
//! Only who writes master.cf or a command line can ask for it: what pipe(8) puts in place of its macros is always the
//! value of an option.

use std::fmt;

use super::hook::believe;
use super::{Delivery, Notice, parse};
use crate::case::store::Store;
use crate::config::Config;
use crate::link::Keys;
use crate::notify;
use crate::postfix::QueueId;

/// The domain of the envelope sender of `posttls check`'s own notice. A real one is not rehearsed: were it, because of a
/// `--check` that stands in master.cf, it would get lost.
pub const CHECK_DOMAIN: &str = "check.posttls.invalid";

/// What the hook says about the notice that it was shown: one line, which `posttls check` compares.
#[derive(Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// Of the program.
    pub version: String,
    /// Of the delayed message.
    pub queue_id: QueueId,
    /// Its sender.
    pub sender: String,
    /// Each recipient, with its failure.
    pub recipients: Vec<(String, String)>,
}

impl fmt::Display for Rehearsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "posttls-pipe {}: would record {}: from=<{}>",
            self.version, self.queue_id, self.sender
        )?;
        for (address, failure) in &self.recipients {
            write!(f, ", to=<{address}> {failure}")?;
        }
        Ok(())
    }
}

impl Rehearsed {
    fn of(notice: &Notice) -> Self {
        let sender = notice.sender.as_ref();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            queue_id: notice.queue_id.clone(),
            sender: sender.map_or_else(String::new, ToString::to_string),
            recipients: notice
                .recipients
                .iter()
                .map(|one| (one.address.to_string(), one.failure().to_string()))
                .collect(),
        }
    }
}

/// Judges a notice, and tries everything that recording it takes: the store, the link key, the admin's templates.
///
/// # Errors
/// What would stand in the way, in words.
pub(super) fn rehearse(
    raw: &[u8],
    delivery: &Delivery<'_>,
    config: &Config,
) -> Result<Rehearsed, String> {
    if !delivery.sender.ends_with(&format!("@{CHECK_DOMAIN}")) {
        return Err("not the notice of `posttls check`: take --check out of master.cf".to_owned());
    }
    believe(raw, delivery, config)
        .map_err(|forged| format!("not made by Postfix itself: {forged}"))?;
    let notice = parse(raw).map_err(|error| error.to_string())?;
    Store::try_to_write(&config.store.path).map_err(|error| error.to_string())?;
    Keys::load(&config.link.key_file).map_err(|error| error.to_string())?;
    notify::overrides(&config.notification.template_dir).map_err(|error| error.to_string())?;
    Ok(Rehearsed::of(&notice))
}
