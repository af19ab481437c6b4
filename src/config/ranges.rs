//! What types can't say of a configuration (pure): ranges, and settings that must differ or fit together.
//!
//! Apart from the names and types, as this is where a new key gets its limits.

use super::Config;
use crate::case::USUAL_LIFETIME;
use crate::domain::Domain;

/// Days for which Postfix tries by default (maximal_queue_lifetime).
const USUAL_LIFETIME_DAYS: u16 = (USUAL_LIFETIME / 86_400) as u16;

impl Config {
    /// What types can't say: ranges, and settings that must differ.
    pub(super) fn check_ranges(&self) -> Result<(), (&'static str, String)> {
        let absolute = [
            ("encrypt.config_dir", &self.encrypt.config_dir),
            ("may.config_dir", &self.may.config_dir),
            ("store.path", &self.store.path),
            ("link.key_file", &self.link.key_file),
            ("mover.run_dir", &self.mover.run_dir),
        ];
        for (key, path) in absolute {
            if !path.is_absolute() {
                return Err((key, format!("{path:?} must be an absolute path")));
            }
        }
        for (key, path) in [
            ("http.template_dir", &self.http.template_dir),
            ("notification.template_dir", &self.notification.template_dir),
        ] {
            if !path.as_os_str().is_empty() && !path.is_absolute() {
                return Err((key, format!("{path:?} must be an absolute path, or empty")));
            }
        }
        if self.encrypt.config_dir == self.may.config_dir {
            return Err((
                "may.config_dir",
                "must be another instance than encrypt.config_dir".to_owned(),
            ));
        }
        let url = &self.link.base_url;
        if !matches!(url.scheme(), "http" | "https")
            || url.host().is_none()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err((
                "link.base_url",
                format!("{url} must be an http or https address without query"),
            ));
        }
        if self.link.valid_days > 365 {
            return Err(("link.valid_days", "must be from 0 to 365".to_owned()));
        }
        if self.mover.delivery_wait_seconds > 9 {
            return Err((
                "mover.delivery_wait_seconds",
                "must be from 0 to 9".to_owned(),
            ));
        }
        if !(1..=64).contains(&self.mover.workers) {
            return Err(("mover.workers", "must be from 1 to 64".to_owned()));
        }
        let from = &self.notification.from_address;
        if Domain::of(from).is_none() {
            return Err((
                "notification.from_address",
                format!("{from} has no domain: a mail from there is refused"),
            ));
        }
        if let Some(reply_to) = &self.notification.reply_to
            && (Domain::of(reply_to).is_none() || !reply_to.is_writable())
        {
            return Err((
                "notification.reply_to",
                format!("{reply_to} is no address that a mail program can reply to"),
            ));
        }
        let local = from
            .as_str()
            .rsplit_once('@')
            .map_or("", |(local, _)| local);
        if !local.is_ascii() || !from.is_writable() {
            return Err((
                "notification.from_address",
                format!("{from} has letters before the \"@\" that few mail servers take"),
            ));
        }
        if !(1..=120).contains(&self.notification.smtp_timeout_seconds) {
            return Err((
                "notification.smtp_timeout_seconds",
                "must be from 1 to 120".to_owned(),
            ));
        }
        if self.notification.smtp_port == 0 {
            return Err((
                "notification.smtp_port",
                "must be from 1 to 65535".to_owned(),
            ));
        }
        let hours = &self.reminders.after_hours;
        if hours.len() > 10 || hours.contains(&0) || !hours.is_sorted_by(|a, b| a < b) {
            return Err((
                "reminders.after_hours",
                "must be at most 10 whole hours, ascending, the first at least 1".to_owned(),
            ));
        }
        for (key, value, least, most) in [
            ("remember.days", u32::from(self.remember.days), 0, 365),
            ("limits.first", self.limits.first, 1, 100),
            ("limits.window_minutes", self.limits.window_minutes, 1, 1440),
            (
                "limits.per_sender_hour",
                self.limits.per_sender_hour,
                1,
                10_000,
            ),
            ("limits.per_hour", self.limits.per_hour, 1, 1_000_000),
            (
                "notification.tell_waiting_hours",
                self.notification.tell_waiting_hours,
                0,
                240,
            ),
            ("sweep.seconds", self.sweep.seconds, 1, 3600),
            ("sweep.census_minutes", self.sweep.census_minutes, 0, 10_080),
            ("retention.days", u32::from(self.retention.days), 0, 3650),
        ] {
            if !(least..=most).contains(&value) {
                return Err((key, format!("must be from {least} to {most}")));
            }
        }
        let least = self.link.valid_days + USUAL_LIFETIME_DAYS;
        if (1..least).contains(&self.retention.days) {
            return Err((
                "retention.days",
                format!(
                    "must be 0, or at least {least}: link.valid_days, and {USUAL_LIFETIME_DAYS} in which Postfix keeps trying, \
                     as a link must not outlive what it shows"
                ),
            ));
        }
        if let Some(kind) = self
            .offer
            .failures
            .iter()
            .find(|kind| !kind.can_be_offered())
        {
            return Err((
                "offer.failures",
                format!("{kind} can't be offered to senders"),
            ));
        }
        if let Err(error) = minijinja::Environment::new().render_str(&self.notification.subject, ())
        {
            return Err(("notification.subject", format!("{error:#}")));
        }
        let target = &self.log.target;
        if !(target == "syslog" || target == "stderr" || target.starts_with('/')) {
            return Err((
                "log.target",
                format!("{target:?} must be \"syslog\", \"stderr\" or an absolute path"),
            ));
        }
        Ok(())
    }
}
