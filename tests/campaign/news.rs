//! Was every sender whose message waits told of it, and only once? Twice is excused where a process died between its
//! claim on the mail and the record that it was sent, or where a kill cut off the answer to the mail.

use std::collections::BTreeMap;

use mailparse::MailHeaderMap as _;

use crate::evidence::{Mail, Row};
use crate::verdict::Court;

/// The mails that ask about messages, by the queue ID of each message that they are about.
fn askings(inbox: &[Mail]) -> BTreeMap<String, Vec<&Mail>> {
    let mut found: BTreeMap<String, Vec<&Mail>> = BTreeMap::new();
    for mail in inbox {
        let Ok(parsed) = mailparse::parse_mail(mail.raw.as_bytes()) else {
            continue;
        };
        let from = parsed.headers.get_first_value("From").unwrap_or_default();
        let text = parsed
            .subparts
            .first()
            .and_then(|part| part.get_body().ok());
        let Some(text) = text.filter(|_| from.contains("posttls@sender.test")) else {
            continue;
        };
        // Informations have no link to decide.
        if !text.contains("/c/") && !text.contains("/s/") {
            continue;
        }
        let Some((_, references)) = text.rsplit_once("(Reference") else {
            continue;
        };
        let words = references.split(|c: char| !c.is_ascii_alphanumeric());
        for id in words.filter(|word| word.len() > 5) {
            found.entry(id.to_owned()).or_default().push(mail);
        }
    }
    found
}

/// When a mail was composed, by its own Date, in Unix milliseconds.
fn composed(mail: &Mail) -> i64 {
    let date = crate::common::header(&mail.raw, "Date").expect("a Date header");
    mailparse::dateparse(&date).expect("a date") * 1000
}

/// What is wrong with the news.
pub fn judge(court: &Court<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let told = askings(&court.evidence.inbox);
    let mut cases: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in court.evidence.rows.values().flatten() {
        cases.entry(&row.queue_id).or_default().push(row);
    }
    for (queue_id, rows) in cases {
        let mails = told.get(queue_id).map_or(&[][..], |mails| mails);
        let waits = |row: &&&Row| row.state == "open";
        if mails.is_empty() && rows.iter().any(|row| waits(&row)) {
            wrong.push(format!(
                "{queue_id}: a recipient waits, and its sender was never told"
            ));
        }
        for pair in mails.windows(2) {
            // Another recipient may have become stuck only after the first mail.
            let later = |row: &&Row| row.stuck_at.is_some_and(|at| at >= pair[0].began - 1000);
            let joined = rows.iter().any(later);
            if !joined && !court.is_unrecorded(composed(pair[0])) {
                wrong.push(format!(
                    "{queue_id}: its sender was told twice ({} and {}), and no kill explains it",
                    pair[0].origin.1, pair[1].origin.1
                ));
            }
        }
    }
    wrong
}
