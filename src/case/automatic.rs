//! Mail that programs send: who reads what is written to its sender? (pure)
//!
//! A mailing list sends each message under its own address, often one a recipient (VERP), and takes whatever comes back
//! there for a bounce. Programs that answer have nobody behind them, either (RFC 3834).

use crate::address::Address;
use crate::domain::Domain;

/// What stands at the beginning or at the end of the names of such senders.
const BEGINNINGS: [&str; 3] = ["owner-", "bounce-", "bounces-"];
const ENDS: [&str; 6] = [
    "-owner", "-bounce", "-bounces", "-request", "-return", "-errors",
];
/// Names of such senders.
const NAMES: [&str; 8] = [
    "noreply",
    "no-reply",
    "no_reply",
    "donotreply",
    "do-not-reply",
    "bounce",
    "bounces",
    "mailer-daemon",
];
/// A person's address within that of who forwarded the mail (SRS), or with a signature (BATV, RFC draft-levine-smtp-batv).
const PERSONS: [&str; 7] = [
    "srs0=", "srs0+", "srs0-", "srs1=", "srs1+", "srs1-", "prvs=",
];

/// Does its name say that nobody reads mail to this sender?
pub fn by_name(sender: &Address) -> bool {
    let local = sender
        .as_str()
        .rsplit_once('@')
        .map_or(sender.as_str(), |(local, _)| local)
        .to_ascii_lowercase();
    if PERSONS.iter().any(|beginning| local.starts_with(beginning)) {
        return false;
    }
    if names_recipient(&local) {
        return true;
    }
    let name = local.split('+').next().unwrap_or(&local);
    NAMES.contains(&name)
        || BEGINNINGS.iter().any(|start| name.starts_with(start))
        || ENDS.iter().any(|end| name.ends_with(end))
}

/// VERP: behind the name of the list, the recipient, with `=` for its `@` (postconf(5), `default_verp_delimiters`).
fn names_recipient(local: &str) -> bool {
    let Some((before, domain)) = local.rsplit_once('=') else {
        return false;
    };
    let Some(at) = before.rfind(['+', '-']) else {
        return false;
    };
    at > 0 && at + 1 < before.len() && domain.contains('.') && domain.parse::<Domain>().is_ok()
}

/// Does a header field say so? `Auto-Submitted` other than `no` (RFC 3834 section 5), the customary `Precedence`, and
/// `List-Id` (RFC 2919).
pub fn by_field(name: &str, value: &str) -> bool {
    let word = value
        .split([';', ' ', '\t', '('])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    match name.to_ascii_lowercase().as_str() {
        "auto-submitted" => !word.is_empty() && word != "no",
        "precedence" => ["list", "bulk", "junk"].contains(&word.as_str()),
        "list-id" => !value.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_told_from_persons() {
        for (sender, automatic) in [
            ("owner-news@lists.test", true),
            ("news-owner@lists.test", true),
            ("news-bounces@lists.test", true),
            ("News-Bounces@lists.test", true),
            ("news-bounces+bob=plain.test@lists.test", true),
            ("news+bob=plain.test@lists.test", true),
            ("news-return-17-bob=plain.test@lists.test", true),
            ("bounce-17@lists.test", true),
            ("news-request@lists.test", true),
            ("noreply@shop.test", true),
            ("no-reply+17@shop.test", true),
            ("alice@sender.test", false),
            ("alice+bounces@sender.test", false),
            ("alice-b@sender.test", false),
            ("a+b=c@sender.test", false),
            ("owner@sender.test", false),
            ("SRS0=ab12=XY=other.test=bob@forwarder.test", false),
            (
                "srs1+ab=x.test==ab12=XY=other.test=bob@forwarder.test",
                false,
            ),
            ("prvs=1234abcdef=alice@sender.test", false),
            ("root", false),
            ("=x.test@sender.test", false),
        ] {
            assert_eq!(by_name(&sender.parse().unwrap()), automatic, "{sender}");
        }
    }

    #[test]
    fn header_fields_say_it() {
        for (name, value, automatic) in [
            ("Precedence", "list", true),
            ("precedence", "Bulk", true),
            ("Precedence", "junk (x)", true),
            ("Precedence", "first-class", false),
            ("List-Id", "<news.lists.test>", true),
            ("Auto-Submitted", "auto-replied; owner-email=\"x\"", true),
            ("Auto-Submitted", "auto-generated", true),
            ("Auto-Submitted", "No", false),
            ("Auto-Submitted", "no; x=y", false),
            ("Subject", "list", false),
        ] {
            assert_eq!(by_field(name, value), automatic, "{name}: {value}");
        }
    }
}
