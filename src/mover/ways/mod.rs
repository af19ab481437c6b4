//! What stands between a stuck recipient and plain text, as Postfix itself would say: is the message under REQUIRETLS, at
//! whose server did it fail, and does a policy of the encrypt instance demand TLS for its next hop?
//!
//! Only root can know: the queue file is closed to others, and tables may be. Asked by sweep, census and moves within the
//! mover, by the hook through [`super::standing`], and by the admin's command. What can't be found out is unknown, never free.

mod demand;
mod hops;
mod tables;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use self::tables::Tables;
use super::source::Source;
use crate::address::Address;
use crate::intake::Deferred;
use crate::octets;
use crate::postfix::instance::PostfixError;
use crate::postfix::{Instance, QueueFile, Resolved, Service, Settings};
use crate::standing::{Host, Standing};
use crate::text::readable;

pub use hops::{OwnHop, own_hops};

/// Characters of a remark.
const REMARK: usize = 300;

/// What tells one version of main.cf and master.cf from the next.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

/// Finds out what stands on the ways of recipients.
pub struct Ways {
    /// Servers on this host that are somebody else's.
    remote: Vec<String>,
    settings: Mutex<Option<(Stamp, Arc<Settings>)>>,
    tables: Tables,
}

/// Whose mail is stuck, and where it failed.
struct Stuck<'a> {
    settings: &'a Settings,
    tables: &'a Tables,
    remote: &'a [String],
    sender: &'a str,
    recipient: &'a Address,
    /// The server that Postfix's words name.
    host: Option<&'a Host>,
}

/// What a queue file says of its message's way.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    requires_tls: bool,
    filter: Option<String>,
    redirect: Option<String>,
}

impl From<&QueueFile> for Envelope {
    fn from(file: &QueueFile) -> Self {
        let text = |found: &Vec<u8>| octets::text(found);
        Self {
            requires_tls: file.size.requires_tls(),
            filter: file.filter.as_ref().map(text),
            redirect: file.redirect.as_ref().map(text),
        }
    }
}

impl Ways {
    /// For the mover. `remote` names servers on this host that are not ours.
    pub fn new(remote: &[String]) -> Self {
        Self::asking(remote, Tables::brief())
    }

    /// For a command, which waits longer for an answer.
    pub fn patient(remote: &[String]) -> Self {
        Self::asking(remote, Tables::patient())
    }

    fn asking(remote: &[String], tables: Tables) -> Self {
        Self {
            remote: remote.to_owned(),
            settings: Mutex::default(),
            tables,
        }
    }

    /// Reads the settings before anybody asks. What is wrong with them, who asks is told.
    pub fn prepare(&self, instance: &Instance) {
        drop(self.settings(instance));
    }

    /// Judges those deferred recipients of a message whose words could mean several things.
    pub fn judge(&self, instance: &Instance, source: &Source, deferred: &mut [Deferred]) {
        let envelope = Envelope::from(&source.content);
        let sender = octets::text(&source.content.sender);
        for one in deferred {
            if one.words.needs_standing() {
                one.standing = self.standing(
                    instance,
                    &envelope,
                    &sender,
                    &one.address,
                    one.host.as_ref(),
                );
            }
        }
    }

    /// What stands between this recipient and plain text.
    pub fn standing(
        &self,
        instance: &Instance,
        envelope: &Envelope,
        sender: &str,
        recipient: &Address,
        host: Option<&Host>,
    ) -> Standing {
        let standing = self
            .settings(instance)
            .map_err(|error| error.to_string())
            .and_then(|settings| {
                let stuck = Stuck {
                    settings: &settings,
                    tables: &self.tables,
                    remote: &self.remote,
                    sender,
                    recipient,
                    host,
                };
                stuck.find_out(envelope)
            });
        match standing {
            // Whatever else can't be found out: this is certain.
            Err(_) if envelope.requires_tls => Standing::RequireTls,
            Err(why) => Standing::Unknown(readable(&why, REMARK)),
            Ok(standing) => standing,
        }
    }

    /// Can every table of policies be asked? What is wrong otherwise, and what was asked.
    ///
    /// # Errors
    /// What is wrong.
    pub fn try_tables(settings: &Settings) -> Result<String, String> {
        let fresh = Tables::patient();
        let mut asked = Vec::new();
        for service in settings.running("smtp") {
            for name in ["smtp_tls_policy_maps", "smtp_tls_per_site"] {
                let tables = settings.for_service(service, name);
                if tables.is_empty() || asked.contains(&tables) {
                    continue;
                }
                fresh.look_up(settings, tables, "posttls.invalid")?;
                asked.push(tables);
            }
        }
        Ok(asked.join(", "))
    }

    fn settings(&self, instance: &Instance) -> Result<Arc<Settings>, PostfixError> {
        // Before they are read: a change in between is then seen as one.
        let now = stamp(&instance.config_dir);
        let lock = || self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, settings)) = &*lock()
            && *then == now
            && now.iter().all(Option::is_some)
        {
            return Ok(Arc::clone(settings));
        }
        // Without the lock: postconf may take its time, and others have asked before.
        let fresh = Arc::new(Settings::load(&instance.config_dir)?);
        *lock() = Some((now, Arc::clone(&fresh)));
        self.tables.forget();
        Ok(fresh)
    }
}

impl Stuck<'_> {
    fn find_out(&self, envelope: &Envelope) -> Result<Standing, String> {
        let settings = self.settings;
        if let Some(target) = &envelope.redirect {
            return Ok(Standing::Ours(format!(
                "the message is redirected to <{}> (REDIRECT in a table of yours), and it failed on the way there",
                readable(target, 200)
            )));
        }
        if let Some(filter) = &envelope.filter {
            return Ok(Standing::Ours(hops::by_filter(settings, filter)));
        }
        let address = self.recipient.as_str();
        let way = self.tables.route(settings, self.sender, address)?;
        let service = settings
            .service(&way.transport, "unix")
            .ok_or_else(|| format!("master.cf has no service {:?}", way.transport))?;
        if !matches!(service.command.as_str(), "smtp" | "lmtp") {
            return Err(format!(
                "Postfix would take it to {}:{} now, which is not smtp(8)",
                way.transport, way.next_hop
            ));
        }
        if let Some(why) = self.ours(service, &way)? {
            return Ok(Standing::Ours(why));
        }
        if envelope.requires_tls {
            return Ok(Standing::RequireTls);
        }
        Ok(match self.demand(service, &way.next_hop)? {
            Some(demand) => Standing::Demanded(demand),
            None => Standing::Free,
        })
    }
}

fn stamp(config_dir: &Path) -> Stamp {
    ["main.cf", "master.cf"].map(|name| {
        let found = std::fs::metadata(config_dir.join(name)).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    })
}

/// Where Postfix would take mail for a domain that no table names.
///
/// # Errors
/// Why it can't say.
pub fn route_of_anybody(settings: &Settings) -> Result<Resolved, String> {
    Tables::patient().route_of_anybody(settings, "")
}

/// `smtp_NAME`, or `lmtp_NAME` for a service that runs as lmtp(8).
fn parameter(service: &Service, name: &str) -> String {
    format!("{}_{name}", service.command)
}
