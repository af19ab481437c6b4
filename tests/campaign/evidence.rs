//! What is found at the end, without any trust in PostTLS: the mailboxes of the remote side with each mail's way there,
//! the queue files of both instances, and the rows of the store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use posttls::case::{Action, Outcome};
use posttls::postfix::QueueFile;
use posttls::sandbox::Instance;

use crate::common::{Stage, header};
use crate::rest::mode;

/// A mail in a mailbox of the remote side.
#[derive(Debug, Clone)]
pub struct Mail {
    /// When its transaction began, and when it was in the mailbox; Unix milliseconds.
    pub began: i64,
    pub arrived: i64,
    pub over_tls: bool,
    /// Who brought it: the instance, and the queue ID that the message had in the encrypt instance (a queue file
    /// carries it on into the may instance).
    pub origin: (String, String),
    pub raw: String,
}

/// A queue file.
#[derive(Debug)]
pub struct Queued {
    pub instance: Instance,
    pub queue: String,
    pub id: String,
    pub mode: u32,
    pub pending: Vec<String>,
}

/// A recipient in the store.
#[derive(Debug, Clone)]
pub struct Row {
    pub queue_id: String,
    pub sender: String,
    pub state: String,
    /// Send or delete: what, by whom, when.
    pub decision: Option<(Action, String, i64)>,
    pub kept: bool,
    /// Of the move that carried it out.
    pub outcome: Option<Outcome>,
    pub copy: Option<String>,
    pub stuck_at: Option<i64>,
    pub may_send: bool,
    /// Could it not be judged at first, as the mover was away? It could not be sent until then.
    pub judged_late: bool,
}

/// Everything.
pub struct Evidence {
    pub mails: BTreeMap<String, Vec<Mail>>,
    pub inbox: Vec<Mail>,
    pub queued: Vec<Queued>,
    pub rows: BTreeMap<String, Vec<Row>>,
    /// Queue IDs in the may instance: of each recipient that it logs a delivery of, and of each message that was ever
    /// active there, with its sender.
    pub ways: BTreeMap<String, BTreeSet<String>>,
    pub active: BTreeMap<String, String>,
    /// The copies that the journal knows of.
    pub copies: BTreeSet<String>,
}

pub fn gather(stage: &Stage) -> Evidence {
    let origins = origins(&stage.sandbox.log(Instance::Mx));
    let delivered = stage.dir().join("delivered");
    let mut mails = BTreeMap::new();
    for entry in fs::read_dir(&delivered).into_iter().flatten().flatten() {
        let address = entry.file_name().to_string_lossy().into_owned();
        mails.insert(address, mailbox(&entry.path(), &origins));
    }
    Evidence {
        mails,
        inbox: mailbox(&stage.dir().join("inbox"), &origins),
        queued: queued(stage),
        rows: rows(stage),
        ways: logged(stage, "/smtp[", "to=<")
            .map(|(id, to)| (to, BTreeSet::from([id])))
            .fold(BTreeMap::new(), |mut all, (to, ids)| {
                all.entry(to).or_insert_with(BTreeSet::new).extend(ids);
                all
            }),
        active: logged(stage, "/qmgr[", "from=<").collect(),
        copies: copies(stage),
    }
}

/// Lines of the may instance's log by this service with this word: queue ID, and the address after the word.
fn logged(
    stage: &Stage,
    service: &'static str,
    word: &'static str,
) -> impl Iterator<Item = (String, String)> {
    let log = stage.sandbox.log(Instance::May);
    let found: Vec<_> = log
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(service)?.1.split_once("]: ")?;
            let (id, rest) = rest.split_once(": ")?;
            let address = rest.strip_prefix(word)?.split('>').next()?;
            Some((id.to_owned(), address.to_owned()))
        })
        .collect();
    found.into_iter()
}

fn copies(stage: &Stage) -> BTreeSet<String> {
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    let mut statement = store
        .prepare("SELECT copy_name FROM moves WHERE copy_name IS NOT NULL")
        .expect("a query");
    let names = statement.query_map([], |row| row.get(0));
    names
        .expect("names")
        .collect::<rusqlite::Result<_>>()
        .expect("names")
}

/// Queue ID at the mx, to the queue ID that the encrypt instance gave: both instances say it with XFORWARD.
fn origins(log: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for line in log.lines() {
        let Some((_, rest)) = line.split_once("/smtpd[") else {
            continue;
        };
        let Some((_, rest)) = rest.split_once("]: ") else {
            continue;
        };
        let origin = rest
            .split_once("orig_queue_id=")
            .and_then(|(_, rest)| rest.split(',').next());
        if let (Some((id, _)), Some(origin)) = (rest.split_once(": client="), origin) {
            found.insert(id.to_owned(), origin.to_owned());
        }
    }
    found
}

fn mailbox(maildir: &Path, origins: &HashMap<String, String>) -> Vec<Mail> {
    let entries = fs::read_dir(maildir.join("new"))
        .into_iter()
        .flatten()
        .flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| mail(file, origins)).collect()
}

fn mail(file: &Path, origins: &HashMap<String, String>) -> Mail {
    let raw = String::from_utf8_lossy(&fs::read(file).expect("a mail")).into_owned();
    let received = header(&raw, "Received").expect("a Received header");
    let word_after = |key: &str| {
        let (_, rest) = received.split_once(key)?;
        rest.split_whitespace().next()
    };
    let instance = word_after("from ").and_then(|host| host.split('.').next());
    let id = word_after(" id ")
        .expect("a queue ID")
        .trim_end_matches(';');
    let origin = origins.get(id).cloned();
    let date = received.rsplit(';').next().unwrap_or_default();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut time = name.split('.').map(|part| part.parse::<i64>().unwrap_or(0));
    Mail {
        began: mailparse::dateparse(date.trim()).expect("a date") * 1000,
        arrived: time.next().unwrap_or(0) * 1000 + time.next().unwrap_or(0) / 1_000_000,
        over_tls: received.contains("SMTPS"),
        origin: (
            instance.unwrap_or_default().to_owned(),
            // Postfix's own reports have none.
            origin.unwrap_or_else(|| format!("? ({id} at the mx)")),
        ),
        raw,
    }
}

/// Every queue file of both instances that can be read; one that moves meanwhile may be missed or come twice.
pub fn queued(stage: &Stage) -> Vec<Queued> {
    let mut found = Vec::new();
    for instance in [Instance::Encrypt, Instance::May] {
        let root = stage.sandbox.queue_dir(instance);
        for queue in [
            "maildrop", "incoming", "active", "deferred", "hold", "corrupt",
        ] {
            let mut files = Vec::new();
            walk(&root.join(queue), &mut files);
            for path in files {
                let id = path.file_name().unwrap_or_default().to_string_lossy();
                let content = fs::File::open(&path).ok().map(QueueFile::read);
                let pending = match &content {
                    Some(Ok(content)) => content
                        .pending()
                        .map(|one| String::from_utf8_lossy(&one.bytes).into_owned())
                        .collect(),
                    _ => Vec::new(),
                };
                found.push(Queued {
                    instance,
                    queue: queue.to_owned(),
                    id: id.into_owned(),
                    mode: mode(&path),
                    pending,
                });
            }
        }
    }
    found
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
            _ => found.push(entry.path()),
        }
    }
}

fn rows(stage: &Stage) -> BTreeMap<String, Vec<Row>> {
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    let mut statement = store
        .prepare(
            "SELECT r.address, c.id, c.queue_id, c.sender, r.state, d.action, d.actor, d.decided_at,
                    EXISTS (SELECT 1 FROM decisions k WHERE k.recipient_id = r.id AND k.action = 'keep'),
                    m.outcome, v.step, v.copy_name, r.stuck_at, r.may_send,
                    EXISTS (SELECT 1 FROM events e WHERE e.case_id = c.id AND e.recipient = r.address AND e.what IN ('judged', 'offered', 'failure-changed'))
             FROM cases c JOIN recipients r ON r.case_id = c.id
             LEFT JOIN decisions d ON d.recipient_id = r.id AND d.action <> 'keep'
             LEFT JOIN move_recipients m ON m.recipient_id = r.id
             LEFT JOIN moves v ON v.id = m.move_id",
        )
        .expect("a query");
    let mut found: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut query = statement.query([]).expect("recipients");
    while let Some(row) = query.next().expect("a recipient") {
        let text = |index: usize| row.get::<_, Option<String>>(index).expect("text");
        let decision = text(5).map(|action| {
            let action = action.parse().expect("an action");
            let at = row.get(7).expect("a time");
            (action, text(6).expect("an actor"), at)
        });
        let address = text(0).expect("an address");
        found.entry(address).or_default().push(Row {
            queue_id: text(2).expect("a queue ID"),
            sender: text(3).expect("a sender"),
            state: text(4).expect("a state"),
            decision,
            kept: row.get(8).expect("yes or no"),
            outcome: text(9).map(|name| name.parse().expect("an outcome")),
            copy: text(11),
            stuck_at: row.get(12).expect("a time"),
            may_send: row.get(13).expect("yes or no"),
            judged_late: row.get(14).expect("yes or no"),
        });
    }
    found
}
