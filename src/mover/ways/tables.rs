//! Asks Postfix's tables and its trivial-rewrite, remembers what they said, and does not wait twice for who does not answer.
//!
//! A table may be another process's to answer, and that process may hang. Then one question waits in vain, and the next ones
//! are told so at once: a message to a thousand next hops must not keep the sweep waiting a thousand times.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::postfix::instance::PostfixError;
use crate::postfix::settings::list;
use crate::postfix::{Resolved, Settings, resolve};

/// How long an answer counts: long enough for a burst of notices, too short for anybody to notice.
const FRESH: Duration = Duration::from_secs(5);
/// How long an answer may take in the mover: somebody's click may wait for it. After a change of a texthash file
/// trivial-rewrite itself waits until the file has stood still for a second (Postfix src/util/dict_thash.c), and needs two.
const BRIEF: Duration = Duration::from_secs(4);
/// How long where only an admin waits: a busy host answers late.
const PATIENT: Duration = Duration::from_secs(10);
/// For so long nothing is asked of who did not answer.
const AVOIDED: Duration = Duration::from_secs(5);
/// For so long the question itself is not asked again: what comes after the pause is to be another's, as some tables hang
/// for some domains only.
const HUNG: Duration = Duration::from_secs(15);
/// Answers that are remembered.
const MOST: usize = 10_000;
/// There is no such domain (RFC 2606), so no table has an entry for it but one that is for all.
pub(super) const ANY_DOMAIN: &str = "elsewhere.invalid";

/// Who says where mail goes.
const REWRITE: &str = "trivial-rewrite";

/// What was answered, and until when that counts.
struct Recent<K, V>(HashMap<K, (Instant, V)>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let (until, value) = self.0.get(key)?;
        (Instant::now() < *until).then(|| value.clone())
    }

    fn keep(&mut self, key: K, value: V, how_long: Duration) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(key, (Instant::now() + how_long, value));
    }
}

/// What is known of one who is asked.
#[derive(Default, Clone, Copy)]
struct Health {
    answered: Option<Instant>,
    /// Nobody asks before that.
    avoided: Option<Instant>,
}

type Entry = Result<Option<String>, String>;

#[derive(Default)]
struct Known {
    entries: Recent<(String, String), Entry>,
    routes: Recent<String, Resolved>,
    health: HashMap<String, Health>,
}

/// The tables of one instance. The lock is never held while anybody is asked.
pub struct Tables {
    known: Mutex<Known>,
    patience: Duration,
}

impl Tables {
    /// For the mover, where others wait meanwhile.
    pub fn brief() -> Self {
        Self {
            known: Mutex::default(),
            patience: BRIEF,
        }
    }

    /// For a command that an admin has typed.
    pub fn patient() -> Self {
        Self {
            known: Mutex::default(),
            patience: PATIENT,
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all answers: the settings have changed.
    pub fn forget(&self) {
        let mut known = self.known();
        known.entries = Recent::default();
        known.routes = Recent::default();
    }

    /// What the first table that knows the key has for it. A table without a type is of Postfix's default type.
    ///
    /// # Errors
    /// Why that can't be said.
    pub fn look_up(&self, settings: &Settings, tables: &str, key: &str) -> Entry {
        for table in list(tables) {
            let table = if table.contains(':') {
                table.to_owned()
            } else {
                format!("{}:{table}", settings.get("default_database_type"))
            };
            let found = self.entry(settings, table, key)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn entry(&self, settings: &Settings, table: String, key: &str) -> Entry {
        let id = (table, key.to_owned());
        if let Some(entry) = self.known().entries.get(&id) {
            return entry;
        }
        let (table, _) = &id;
        let begun = self.begin(table)?;
        let answer = settings.lookup_within(self.patience, table, key);
        let hung = matches!(answer, Err(PostfixError::Hung { .. }));
        self.end(table, begun, hung);
        let entry = answer.map_err(|error| error.to_string());
        // Failures are remembered, too: each recipient would ask again.
        let how_long = if hung { HUNG } else { FRESH };
        self.known().entries.keep(id, entry.clone(), how_long);
        entry
    }

    /// Where Postfix would take a recipient.
    ///
    /// # Errors
    /// Why it can't say.
    pub fn route(
        &self,
        settings: &Settings,
        sender: &str,
        address: &str,
    ) -> Result<Resolved, String> {
        let begun = self.begin(REWRITE)?;
        let answer = ask_route(settings, sender, address, self.patience);
        let hung = answer.as_ref().is_err_and(|(_, hung)| *hung);
        self.end(REWRITE, begun, hung);
        answer.map_err(|(why, _)| why)
    }

    /// Where Postfix would take mail of this sender for a domain that no table names.
    ///
    /// # Errors
    /// Why it can't say.
    pub fn route_of_anybody(&self, settings: &Settings, sender: &str) -> Result<Resolved, String> {
        let known = self.known().routes.get(&sender.to_owned());
        if let Some(route) = known {
            return Ok(route);
        }
        let anybody = format!("anybody@{ANY_DOMAIN}");
        let route = self.route(settings, sender, &anybody)?;
        let mut known = self.known();
        known.routes.keep(sender.to_owned(), route.clone(), FRESH);
        Ok(route)
    }

    /// May it be asked now? Who asks first after a pause tries it for all others.
    fn begin(&self, whom: &str) -> Result<Instant, String> {
        let now = Instant::now();
        let mut known = self.known();
        if let Some(health) = known.health.get_mut(whom)
            && let Some(until) = &mut health.avoided
        {
            if now < *until {
                let seconds = self.patience.as_secs();
                return Err(format!(
                    "{whom} did not answer within {seconds} s, and will be asked again soon"
                ));
            }
            *until = now + AVOIDED;
        }
        Ok(now)
    }

    fn end(&self, whom: &str, begun: Instant, hung: bool) {
        let now = Instant::now();
        let mut known = self.known();
        let health = known.health.entry(whom.to_owned()).or_default();
        if !hung {
            *health = Health {
                answered: Some(now),
                avoided: None,
            };
        } else if health.answered.is_none_or(|when| when < begun) {
            // Where others were answered meanwhile it is the question that hangs.
            health.avoided = Some(now + AVOIDED);
        }
    }
}

/// Where Postfix would take a recipient; otherwise why it can't say, and whether it did not answer at all.
fn ask_route(
    settings: &Settings,
    sender: &str,
    address: &str,
    patience: Duration,
) -> Result<Resolved, (String, bool)> {
    let service = match settings.get("rewrite_service_name") {
        "" => "rewrite",
        name => name,
    };
    let socket = Path::new(settings.get("queue_directory"))
        .join("private")
        .join(service);
    resolve(&socket, sender, address, patience).map_err(|error| {
        let stopped = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        );
        let hint = if stopped {
            "; is the encrypt instance stopped?"
        } else {
            ""
        };
        let hung = matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        );
        let why = if hung {
            format!("no answer within {} s", patience.as_secs())
        } else {
            error.to_string()
        };
        (
            format!("cannot ask {}: {why}{hint}", socket.display()),
            hung,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_left_alone_and_tried_by_one_at_a_time() {
        let tables = Tables::brief();
        let begun = tables.begin("a").unwrap();
        assert!(tables.begin("a").is_ok(), "nothing is known yet");
        tables.end("a", begun, true);
        assert!(tables.begin("a").unwrap_err().contains("did not answer"));
        assert!(tables.begin("b").is_ok(), "another table");
        // The pause is over.
        let past = Instant::now();
        tables.known().health.get_mut("a").unwrap().avoided = Some(past);
        let begun = tables.begin("a").unwrap();
        assert!(tables.begin("a").is_err(), "somebody tries it");
        tables.end("a", begun, false);
        assert!(tables.begin("a").is_ok());
    }

    #[test]
    fn a_question_that_hangs_while_others_are_answered_is_no_table_that_hangs() {
        let tables = Tables::brief();
        let begun = tables.begin("a").unwrap();
        let other = tables.begin("a").unwrap();
        tables.end("a", other, false);
        tables.end("a", begun, true);
        assert!(tables.begin("a").is_ok());
    }
}
