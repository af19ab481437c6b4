//! What the remote side saw, and how a test makes a destination treat TLS otherwise.

use posttls::sandbox::Instance;

use super::{Answer, Stage, request};

impl Stage {
    /// Every SMTP command that the mx has seen so far, in the order of its log.
    pub fn dialogue(&self) -> Vec<String> {
        let log = self.sandbox.log(Instance::Mx);
        log.lines()
            .filter_map(|line| line.split_once("]: < "))
            .filter_map(|(_, said)| said.split_once("]: "))
            .map(|(_, command)| command.to_owned())
            .collect()
    }

    /// How often the mx was asked to take mail for `recipient`, accepted or not.
    pub fn attempts(&self, recipient: &str) -> usize {
        let wanted = format!("RCPT TO:<{recipient}>");
        let asks = |command: &String| command.starts_with(&wanted);
        self.dialogue().into_iter().filter(asks).count()
    }

    /// Everything that the mx accepted for `recipient`.
    pub fn arrivals(&self, recipient: &str) -> Vec<String> {
        let all = self.sandbox.delivered(recipient);
        all.iter()
            .map(|raw| String::from_utf8_lossy(raw).into_owned())
            .collect()
    }

    /// From now on the encrypt instance delivers mail for `domain` to the server of `like`.
    pub fn route(&self, domain: &str, like: &str) {
        let domains = &self.sandbox.description()["domains"];
        let server = |name: &str| {
            let address = domains[name]["smtp"].as_str().expect("a domain");
            address.replace("127.0.0.1:", "[127.0.0.1]:")
        };
        let path = self.sandbox.config_dir(Instance::Encrypt).join("transport");
        let table = std::fs::read_to_string(&path).expect("a transport table");
        let old = format!("{domain} smtp:{}\n", server(domain));
        assert!(table.contains(&old), "{table}");
        let new = format!("{domain} smtp:{}\n", server(like));
        std::fs::write(&path, table.replace(&old, &new)).expect("a transport table");
        self.reload(Instance::Encrypt);
    }

    /// Makes both instances deliver mail for a domain of its own to the server of `like`.
    pub fn add_domain(&self, domain: &str, like: &str) {
        let server = self.sandbox.description()["domains"][like]["smtp"].clone();
        let server = server.as_str().expect("a domain");
        let line = format!(
            "{domain} smtp:{}\n",
            server.replace("127.0.0.1", "[127.0.0.1]")
        );
        for instance in [Instance::Encrypt, Instance::May] {
            let path = self.sandbox.config_dir(instance).join("transport");
            let table = std::fs::read_to_string(&path).expect("a transport table");
            std::fs::write(&path, line.clone() + &table).expect("a transport table");
            self.reload(instance);
        }
    }

    /// Sends one form `times` over, all at once; gives all answers.
    pub fn post_at_once(&self, url: &str, form: &str, times: usize) -> Vec<Answer> {
        let start = std::sync::Barrier::new(times);
        std::thread::scope(|scope| {
            let clicks: Vec<_> = (0..times)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        request("POST", url, form)
                    })
                })
                .collect();
            clicks
                .into_iter()
                .map(|click| click.join().expect("an answer"))
                .collect()
        })
    }
}

/// A message without the Received fields that each hop put before it.
pub fn as_sent(raw: &[u8]) -> &[u8] {
    let mut rest = raw;
    while rest.starts_with(b"Received:") {
        let mut end = 0;
        for line in rest.split_inclusive(|byte| *byte == b'\n') {
            if end > 0 && !line.starts_with(b" ") && !line.starts_with(b"\t") {
                break;
            }
            end += line.len();
        }
        rest = &rest[end..];
    }
    rest
}

/// The mails of the inbox by subject, oldest first.
pub fn subjects(stage: &Stage) -> Vec<String> {
    let mails = stage.sandbox.inbox();
    let mails = mails.iter().map(|raw| String::from_utf8_lossy(raw));
    mails
        .map(|mail| super::header(&mail, "Subject").unwrap_or_default())
        .collect()
}
