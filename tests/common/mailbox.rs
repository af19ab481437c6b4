//! What senders and the admin found in their mailboxes, and how a test makes hours pass: by changing the times in the
//! store, never by waiting.

use std::time::Duration;

use super::{Stage, header};

/// A mail, decoded.
#[derive(Debug, Clone)]
pub struct Mail {
    pub subject: String,
    pub to: String,
    pub in_reply_to: Option<String>,
    /// The text part.
    pub text: String,
    pub raw: String,
}

impl Mail {
    /// The link in it whose path begins so, without a choice.
    pub fn link(&self, path: &str) -> String {
        let mut words = self.text.split_whitespace();
        let url = words
            .find(|word| word.contains(path))
            .unwrap_or_else(|| panic!("no {path} in {}", self.text));
        url.split('?').next().unwrap_or(url).to_owned()
    }
}

impl Stage {
    /// A sandbox whose posttls-httpd starts with these settings: section, key, TOML value.
    pub fn configured(settings: &[(&str, &str, &str)]) -> Self {
        let stage = Self::with(|options| options.httpd(false));
        for (section, key, value) in settings {
            stage.configure(section, key, value);
        }
        stage.sandbox.start_httpd(&[]).expect("it starts");
        stage
    }

    /// Everything that arrived for addresses in sender.test, the oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        let inbox = self.sandbox.inbox();
        let decoded = inbox.iter().map(|raw| {
            let mail = mailparse::parse_mail(raw).expect("a mail");
            let part = mail.subparts.first().unwrap_or(&mail);
            let text = part.get_body().expect("text");
            let raw = String::from_utf8_lossy(raw).into_owned();
            Mail {
                subject: header(&raw, "Subject").unwrap_or_default(),
                to: header(&raw, "To").unwrap_or_default(),
                in_reply_to: header(&raw, "In-Reply-To"),
                text,
                raw,
            }
        });
        decoded.collect()
    }

    /// Has the sender been told of this recipient, or is still to be?
    pub fn is_told(&self, recipient: &str) -> bool {
        let store =
            rusqlite::Connection::open(self.dir().join("state/posttls.db")).expect("a store");
        let sql = "SELECT count(*) FROM owed o JOIN recipients r ON r.id = o.recipient_id WHERE r.address = ?1";
        let owed = store.query_row(sql, [recipient], |row| row.get::<_, i64>(0));
        let mails = self.sandbox.inbox();
        let names = |mail: &Vec<u8>| String::from_utf8_lossy(mail).contains(recipient);
        owed.expect("what is owed") > 0 || mails.iter().any(names)
    }

    /// Waits until that is so: between the mail server's word and the mailbox nobody knows of a mail.
    pub fn hears_of(&self, recipient: &str) {
        self.wait(&format!("the sender to hear of {recipient}"), || {
            self.is_told(recipient).then_some(())
        });
    }

    /// Waits for a mail with this subject.
    pub fn mail(&self, subject: &str) -> Mail {
        self.wait(&format!("a mail {subject:?}"), || {
            let mut mails = self.mails().into_iter();
            mails.find(|mail| mail.subject == subject)
        })
    }

    /// Waits until `count` mails have arrived, and a little longer: there must be no more.
    pub fn has_mails(&self, count: usize) -> Vec<Mail> {
        self.wait(&format!("{count} mails"), || {
            (self.mails().len() >= count).then_some(())
        });
        // Two rounds of the courier.
        std::thread::sleep(Duration::from_millis(2500));
        let mails = self.mails();
        let subjects: Vec<&str> = mails.iter().map(|mail| mail.subject.as_str()).collect();
        assert_eq!(mails.len(), count, "{subjects:?}\n{}", self.log());
        mails
    }

    /// Changes rows of the store.
    pub fn sql(&self, statements: &str) {
        let store =
            rusqlite::Connection::open(self.dir().join("state/posttls.db")).expect("a store");
        store.busy_timeout(super::PATIENCE).expect("a timeout");
        store.execute_batch(statements).expect("SQL");
    }

    /// A number from the store.
    pub fn number_of(&self, query: &str) -> i64 {
        let store =
            rusqlite::Connection::open(self.dir().join("state/posttls.db")).expect("a store");
        store.busy_timeout(super::PATIENCE).expect("a timeout");
        store
            .query_row(query, [], |row| row.get(0))
            .expect("a number")
    }

    /// Makes so many minutes pass for everything that the courier looks at.
    pub fn minutes_pass(&self, minutes: i64) {
        let by = minutes * 60_000;
        self.sql(&format!(
            "BEGIN IMMEDIATE;
             UPDATE letters SET claimed_at = claimed_at - {by}, sent_at = sent_at - {by};
             UPDATE owed SET since = since - {by};
             UPDATE cases SET remind_at = remind_at - {by}, told_at = told_at - {by}, notified_at = notified_at - {by};
             UPDATE alerts SET since = since - {by}, told_at = told_at - {by};
             COMMIT"
        ));
    }
}
