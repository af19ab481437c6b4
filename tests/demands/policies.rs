//! A policy server, and a sandbox whose encrypt instance asks it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use posttls::sandbox::{Instance, UpOptions};

use crate::common::Stage;
use crate::next_hop;

/// What a table answers for a key.
type Entries = Arc<Mutex<BTreeMap<String, &'static str>>>;

/// A policy server as postfix-tlspol and postfix-mta-sts-resolver are: Postfix asks it by its socketmap protocol.
pub struct Policies {
    port: u16,
    entries: Entries,
    hangs: Arc<Hangs>,
}

/// What is not answered.
#[derive(Default)]
pub struct Hangs {
    /// What is asked for the second time and later: the first one is smtp(8)'s own.
    later: AtomicBool,
    /// Anything.
    all: AtomicBool,
    /// Questions so far, by key.
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Policies {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let entries = Entries::default();
        let hangs = Arc::<Hangs>::default();
        let (known, hanging) = (Arc::clone(&entries), Arc::clone(&hangs));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (known, hanging) = (Arc::clone(&known), Arc::clone(&hanging));
                thread::spawn(move || answer(&stream, &known, &hanging));
            }
        });
        Self {
            port,
            entries,
            hangs,
        }
    }

    /// Does it answer nothing from now on, or nothing for the second time?
    pub fn hang(&self, all: bool, later: bool) {
        self.hangs.all.store(all, Ordering::SeqCst);
        self.hangs.later.store(later, Ordering::SeqCst);
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.hangs.asked.lock().expect("no panic").values().sum()
    }

    pub fn table(&self) -> String {
        format!("socketmap:inet:127.0.0.1:{}:QUERY", self.port)
    }

    /// From now on answers so for the next hop of a domain of the sandbox.
    pub fn set(&self, stage: &Stage, domain: &str, answer: &'static str) {
        let key = next_hop(stage, domain);
        self.entries.lock().expect("no panic").insert(key, answer);
    }
}

/// Netstrings: `NAME KEY`, and `OK DATA`, `NOTFOUND ` or `TEMP WHY`.
fn answer(mut stream: &TcpStream, entries: &Entries, hangs: &Hangs) -> Option<()> {
    let mut from = BufReader::new(stream);
    loop {
        let mut length = Vec::new();
        from.read_until(b':', &mut length).ok()?;
        let length: usize = std::str::from_utf8(&length)
            .ok()?
            .strip_suffix(':')?
            .parse()
            .ok()?;
        let mut query = vec![0; length + 1];
        from.read_exact(&mut query).ok()?;
        query.pop();
        let query = String::from_utf8(query).ok()?;
        let (_, key) = query.split_once(' ')?;
        let before = {
            let mut asked = hangs.asked.lock().expect("no panic");
            let count = asked.entry(key.to_owned()).or_default();
            *count += 1;
            *count - 1
        };
        let hangs_now =
            hangs.all.load(Ordering::SeqCst) || before > 0 && hangs.later.load(Ordering::SeqCst);
        if hangs_now {
            // Until who asks gives up.
            from.read_to_end(&mut Vec::new()).ok()?;
            return None;
        }
        let found = entries.lock().expect("no panic").get(key).copied();
        let said = found.unwrap_or("NOTFOUND ");
        stream
            .write_all(format!("{}:{said},", said.len()).as_bytes())
            .ok()?;
    }
}

pub fn with(policies: &Policies) -> Stage {
    with_options(policies, |options| options)
}

pub fn with_options(policies: &Policies, change: impl FnOnce(UpOptions) -> UpOptions) -> Stage {
    let table = policies.table();
    Stage::with(|options| {
        change(
            options
                .main_cf(Instance::Encrypt, "smtp_tls_policy_maps", &table)
                .posttls_toml("[sweep]\nseconds = 1\ncensus_minutes = 0\n"),
        )
    })
}
