//! Links that a test makes itself, with the key of the sandbox: those that come by mail are the notifications' matter.

use posttls::address::Address;
use posttls::case::{Case, ConsentId};
use posttls::config::Config;
use posttls::link::{Keys, Linked};

use super::Stage;

impl Stage {
    /// The configuration as it stands in the file now.
    pub fn config(&self) -> Config {
        Config::load(&self.sandbox.config_file()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A token that opens `id` for so many seconds.
    pub fn token<T: Linked>(&self, id: T, seconds: i64) -> String {
        let keys = Keys::load(&self.config().link.key_file).expect("a key");
        keys.sign(id, jiff::Timestamp::now().as_second() + seconds)
    }

    /// The page with all messages of a sender.
    pub fn sender_link(&self, sender: &str) -> String {
        let sender: Address = sender.parse().expect("an address");
        let id = self.store().sender_id(&sender).expect("a number");
        self.page('s', &self.token(id, 3600))
    }

    /// The page of a case.
    pub fn case_link(&self, queue_id: &str) -> String {
        self.page('c', &self.token(self.known(queue_id).id, 3600))
    }

    /// The page of a remembered choice.
    pub fn consent_link(&self, id: ConsentId) -> String {
        self.page('r', &self.token(id, 3600))
    }

    /// The address of a page.
    pub fn page(&self, kind: char, token: &str) -> String {
        format!("{}/{kind}/{token}", self.sandbox.http())
    }

    /// Waits until the store knows of a message.
    pub fn known(&self, queue_id: &str) -> Case {
        let id = queue_id.parse().expect("a queue ID");
        self.wait(&format!("a case of {queue_id}"), || {
            self.store()
                .cases_of(&id)
                .expect("cases")
                .into_iter()
                .next()
        })
    }

    /// Sends a small message from `from` and waits until it is stuck, off the active queue.
    pub fn stuck_from(&self, from: &str, to: &[&str], subject: &str) -> String {
        let message = format!(
            "From: {from}\r\nTo: undisclosed-recipients:;\r\nSubject: {subject}\r\n\r\nbody of {subject}\r\n"
        );
        let queue_id = self
            .sandbox
            .submit(from, to, message.as_bytes())
            .unwrap_or_else(|error| panic!("{error}"));
        self.known(&queue_id);
        self.in_queue(&queue_id, "deferred");
        queue_id
    }

    /// Has posttls-httpd read its configuration anew.
    pub fn restart(&self) {
        self.sandbox.stop_httpd();
        self.sandbox
            .start_httpd(&[])
            .unwrap_or_else(|error| panic!("{error}"));
    }
}
