//! The way out of the may instance: a smarthost that demands what only the encrypt instance had been given, `posttls
//! mirror`, which mends that, and what senders and the admin hear of released mail that comes back or stays.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use common::Stage;
use common::remote::subjects;
use posttls::sandbox::Instance;
use serde_json::Value;

/// A server without TLS that relays for those only who know the password.
struct Smarthost {
    port: u16,
    taken: Arc<Mutex<Vec<String>>>,
}

/// `AUTH PLAIN` of user "out" with the password "secret".
const PLAIN: &str = "AUTH PLAIN AG91dABzZWNyZXQ=";

impl Smarthost {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let taken = Arc::<Mutex<Vec<String>>>::default();
        let mails = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mails = Arc::clone(&mails);
                thread::spawn(move || serve(&stream, &mails));
            }
        });
        Self { port, taken }
    }

    fn mails(&self) -> Vec<String> {
        self.taken.lock().expect("no panic").clone()
    }
}

fn serve(mut stream: &TcpStream, mails: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).ok();
    let mut known = false;
    say("220 smarthost.test ESMTP")?;
    while let Some(Ok(line)) = lines.next() {
        let command = line.to_uppercase();
        if command.starts_with("EHLO") {
            say("250-smarthost.test\r\n250 AUTH PLAIN")?;
        } else if line == PLAIN {
            known = true;
            say("235 2.7.0 welcome")?;
        } else if command.starts_with("MAIL") && !known {
            say("530 5.7.0 Authentication required")?;
        } else if command.starts_with("QUIT") {
            return say("221 bye");
        } else if command == "DATA" {
            say("354 go on")?;
            let body = lines.by_ref().map_while(Result::ok);
            let mail: Vec<String> = body.take_while(|line| line != ".").collect();
            mails.lock().expect("no panic").push(mail.join("\n"));
            say("250 2.0.0 Ok: relayed")?;
        } else {
            say("250 ok")?;
        }
    }
    Some(())
}

/// Rewrites what the may instance's transport table has for plain.test.
fn may_transport(stage: &Stage, way: &str) {
    let path = stage.sandbox.config_dir(Instance::May).join("transport");
    let table = fs::read_to_string(&path).expect("a table");
    let others = table.lines().filter(|line| !line.starts_with("plain.test"));
    let others: String = others.map(|line| format!("{line}\n")).collect();
    fs::write(&path, format!("plain.test {way}\n{others}")).expect("a table");
    stage.reload(Instance::May);
}

/// What `posttls check` says about one matter.
fn checked(stage: &Stage, id: &str) -> Value {
    let output = stage.posttls(&["check", "--json"]);
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut all = all.as_array().into_iter().flatten();
    all.find(|one| one["id"] == id)
        .unwrap_or_else(|| panic!("no check {id}"))
        .clone()
}

fn passage(stage: &Stage, queue_id: &str, wanted: &str) -> String {
    stage.wait(&format!("a recipient to be {wanted}"), || {
        let case = stage.case(queue_id);
        let one = &case["recipients"][0];
        (one["passage"] == wanted).then(|| one["passage_detail"].to_string())
    })
}

/// The mails of the inbox whose subject begins so.
fn told(stage: &Stage, subject: &str) -> Vec<String> {
    let mails = stage.sandbox.inbox().into_iter();
    mails
        .map(|raw| String::from_utf8_lossy(&raw).into_owned())
        .filter(|mail| {
            common::header(mail, "Subject").is_some_and(|found| found.starts_with(subject))
        })
        .collect()
}

fn text(mail: &str) -> String {
    let mail = mailparse::parse_mail(mail.as_bytes()).expect("a mail");
    let plain = mail.subparts.first().unwrap_or(&mail);
    let text = plain.get_body().expect("text");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn copies(stage: &Stage) -> Vec<PathBuf> {
    let directory = stage.sandbox.config_dir(Instance::May);
    let all = fs::read_dir(directory).expect("a directory").flatten();
    all.map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains(".before-mirror-"))
        .collect()
}

#[test]
fn a_smarthost_that_wants_a_password_is_found_mended_and_then_takes_the_mail() {
    use Instance::{Encrypt, May};
    let smarthost = Smarthost::start();
    let host = format!("[127.0.0.1]:{}", smarthost.port);
    let passwords = format!("inline:{{{{{host} = out:secret}}}}");
    let stage = Stage::with(|options| {
        options
            .main_cf(Encrypt, "relayhost", &host)
            .main_cf(Encrypt, "smtp_sasl_auth_enable", "yes")
            .main_cf(Encrypt, "smtp_sasl_security_options", "noanonymous")
            .main_cf(Encrypt, "smtp_sasl_password_maps", &passwords)
            .main_cf(May, "relayhost", &host)
    });
    // As if the table had no entry: by the relayhost.
    may_transport(&stage, ":");

    // What the sender released comes back, and the sender hears of it.
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "unwelcome");
    assert_eq!(stage.post(&link, "action=send").status, 200);
    let said = passage(&stage, &queue_id, "returned");
    assert!(said.contains("530 5.7.0 Authentication required"), "{said}");
    let mail = stage.wait("a word to the sender", || {
        told(&stage, "Not delivered: unwelcome").pop()
    });
    let read = text(&mail);
    for expected in [
        "bob@plain.test",
        "530 5.7.0 Authentication required",
        "does not try again",
        queue_id.as_str(),
    ] {
        assert!(read.contains(expected), "{expected}: {read}");
    }

    // It could have been known before.
    let found = checked(&stage, "may-way-out");
    assert_eq!(found["status"], "fail", "{found}");
    let what = found["what"].to_string();
    for expected in [
        "smtp_sasl_auth_enable (encrypt: yes, may: no)",
        "smtp_sasl_security_options (encrypt: noanonymous, may: noplaintext, noanonymous)",
        "smtp_sasl_password_maps (encrypt: inline:(not shown), may: (nothing))",
    ] {
        assert!(what.contains(expected), "{expected}: {what}");
    }
    assert!(!found.to_string().contains("secret"), "{found}");

    // Shown first, and nothing changes; then done, once.
    let main_cf = stage.sandbox.config_dir(May).join("main.cf");
    let before = fs::read(&main_cf).expect("main.cf");
    let shown = stage.posttls(&["mirror"]);
    let report = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.status.code(), Some(1), "{report}");
    assert!(report.contains("'smtp_sasl_auth_enable=yes'"), "{report}");
    assert!(
        report.contains("left alone: smtp_tls_policy_maps: "),
        "{report}"
    );
    assert!(!report.contains("secret"), "{report}");
    assert!(copies(&stage).is_empty());
    assert_eq!(fs::read(&main_cf).expect("main.cf"), before);
    let done = stage.said(&["mirror", "--apply"]);
    assert!(done.contains("\nDone. As it was: "), "{done}");
    let kept = copies(&stage);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(
        kept.iter()
            .any(|path| fs::read(path).expect("a copy") == before)
    );
    let again = stage.said(&["mirror", "--apply"]);
    assert!(again.starts_with("Both instances send the same way."));
    assert_eq!(copies(&stage).len(), 2);
    let healthy = checked(&stage, "may-way-out");
    assert_eq!(healthy["status"], "ok", "{healthy}");

    // The level is its own still, and mail arrives.
    let level = ["-h", "smtp_tls_security_level"];
    assert_eq!(stage.run("postconf", May, &level).trim(), "may");
    stage.reload(May);
    let (queue_id, link) = stage.stuck(&["eve@plain.test"], "welcome");
    assert_eq!(stage.post(&link, "action=send").status, 200);
    let said = passage(&stage, &queue_id, "clear");
    assert!(said.contains("relayed"), "{said}");
    let mails = smarthost.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(mails[0].contains("Subject: welcome"), "{mails:?}");
    stage.queues_are_empty();
}

#[test]
fn what_still_waits_after_hours_is_told_once_and_what_comes_back_then_too() {
    let stage = Stage::new();
    // Nobody listens at the discard port.
    may_transport(&stage, "smtp:[127.0.0.1]:9");
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "slow");
    assert_eq!(stage.post(&link, "action=send").status, 200);
    passage(&stage, &queue_id, "deferred");

    // Three hours are not enough, and five are; a courier that is new looks at once.
    restart_after(&stage, 3);
    // Whatever else is owed goes out: so the courier has been round.
    let (_, _) = stage.stuck(&["eve@refuse.test"], "another");
    assert!(told(&stage, "Still not delivered").is_empty());
    restart_after(&stage, 2);
    let mail = stage.wait("a word to the sender", || {
        told(&stage, "Still not delivered: slow").pop()
    });
    let read = text(&mail);
    for expected in ["bob@plain.test", "Connection refused", "keeps trying"] {
        assert!(read.contains(expected), "{expected}: {read}");
    }
    stage.logged(&format!(
        "{queue_id}: to=<bob@plain.test>, decided to be sent, and not delivered after 4 h"
    ));
    restart_after(&stage, 5);
    let (_, _) = stage.stuck(&["ann@refuse.test"], "one more");
    assert_eq!(told(&stage, "Still not delivered").len(), 1);

    // An information mail a window: this one need not wait for it.
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    store
        .execute("DELETE FROM letters WHERE kind = 'information'", [])
        .expect("a letter");
    let lifetime = "maximal_queue_lifetime=1s";
    stage.run("postconf", Instance::May, &["-e", lifetime]);
    stage.reload(Instance::May);
    stage.run("postqueue", Instance::May, &["-f"]);
    passage(&stage, &queue_id, "returned");
    let mail = stage.wait("a word that it came back", || {
        told(&stage, "Not delivered: slow").pop()
    });
    assert!(text(&mail).contains("bob@plain.test"), "{mail}");
    assert_eq!(told(&stage, "Still not delivered").len(), 1);
}

/// Restarts the mover when the first decision is older by so many hours.
fn restart_after(stage: &Stage, hours: i64) {
    stage.sandbox.stop_httpd();
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db"));
    let moved = "UPDATE decisions SET decided_at = decided_at - ?1 * 3600000";
    let changed = store.and_then(|store| store.execute(moved, [hours]));
    assert_eq!(changed.expect("a decision"), 1);
    stage.sandbox.start_httpd(&[]).expect("posttls-httpd");
}

#[test]
fn of_senders_who_are_not_asked_the_admin_hears() {
    let stage = Stage::with(|options| options.httpd(false));
    stage.configure("senders", "internal", "[\"elsewhere.test\"]");
    stage.configure("notification", "admin_address", "\"admin@sender.test\"");
    stage.sandbox.start_httpd(&[]).expect("posttls-httpd");
    let recipients = stage.sandbox.config_dir(Instance::Mx).join("recipients");
    fs::write(recipients, "bob@plain.test 550 5.1.1 no such user\n").expect("a table");
    stage.reload(Instance::Mx);
    let server = stage.sandbox.description()["domains"]["tls.test"]["smtp"].clone();
    let server = server.as_str().expect("an address");
    let way = format!("smtp:{}", server.replace("127.0.0.1", "[127.0.0.1]"));
    may_transport(&stage, &way);
    let queue_id = stage.send(&["bob@plain.test"], "foreign");
    stage.known(&queue_id);
    stage.said(&["release", &queue_id]);
    passage(&stage, &queue_id, "returned");
    let mail = stage.wait("a word to the admin", || {
        told(&stage, "PostTLS: released mail came back").pop()
    });
    let read = text(&mail);
    assert!(
        read.contains(&format!(
            "{queue_id}: from=<alice@sender.test>, to=<bob@plain.test>"
        )),
        "{read}"
    );
    assert!(
        !subjects(&stage)
            .iter()
            .any(|one| one.starts_with("Not delivered")),
        "{:?}",
        subjects(&stage)
    );
}
