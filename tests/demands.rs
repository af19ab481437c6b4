//! Demanded TLS on real Postfix: policies that tables of the encrypt instance give, REQUIRETLS, and hops of our own. Their
//! words are those of any other failure, and nothing of it is ever offered.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Stage, came_over_tls, link};
use posttls::case::store::{NewConsent, now_ms};
use posttls::case::{Failure, Scope};
use posttls::sandbox::{Instance, UpOptions};
use serde_json::Value;

/// What a table answers for a key.
type Entries = Arc<Mutex<BTreeMap<String, &'static str>>>;

/// A policy server as postfix-tlspol and postfix-mta-sts-resolver are: Postfix asks it by its socketmap protocol.
struct Policies {
    port: u16,
    entries: Entries,
}

impl Policies {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let entries = Entries::default();
        let known = Arc::clone(&entries);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let known = Arc::clone(&known);
                thread::spawn(move || answer(&stream, &known));
            }
        });
        Self { port, entries }
    }

    fn table(&self) -> String {
        format!("socketmap:inet:127.0.0.1:{}:QUERY", self.port)
    }

    /// From now on answers so for the next hop of a domain of the sandbox.
    fn set(&self, stage: &Stage, domain: &str, answer: &'static str) {
        let key = next_hop(stage, domain);
        self.entries.lock().expect("no panic").insert(key, answer);
    }
}

/// Netstrings: `NAME KEY`, and `OK DATA`, `NOTFOUND ` or `TEMP WHY`.
fn answer(mut stream: &TcpStream, entries: &Entries) -> Option<()> {
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
        let found = entries.lock().expect("no panic").get(key).copied();
        let said = found.unwrap_or("NOTFOUND ");
        stream
            .write_all(format!("{}:{said},", said.len()).as_bytes())
            .ok()?;
    }
}

fn next_hop(stage: &Stage, domain: &str) -> String {
    let table = stage
        .sandbox
        .config_dir(Instance::Encrypt)
        .join("transport");
    let table = std::fs::read_to_string(table).expect("a table");
    let entry = table
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{domain} smtp:")))
        .expect("a next hop");
    entry.to_owned()
}

fn with(policies: &Policies) -> Stage {
    with_options(policies, |options| options)
}

fn with_options(policies: &Policies, change: impl FnOnce(UpOptions) -> UpOptions) -> Stage {
    let table = policies.table();
    Stage::with(|options| {
        change(
            options
                .main_cf(Instance::Encrypt, "smtp_tls_policy_maps", &table)
                .posttls_toml("[sweep]\nseconds = 1\ncensus_minutes = 0\n"),
        )
    })
}

fn recipient(stage: &Stage, queue_id: &str) -> Value {
    let output = stage.posttls(&["case", queue_id, "--json"]);
    let case: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    case["recipients"][0].clone()
}

fn is(stage: &Stage, queue_id: &str, failure: &str, state: &str) {
    stage.wait(&format!("{queue_id} to be {failure}, {state}"), || {
        let one = recipient(stage, queue_id);
        (one["failure"] == failure && one["state"] == state).then_some(())
    });
    assert_eq!(recipient(stage, queue_id)["may_send"], false);
}

fn history(stage: &Stage, queue_id: &str) -> String {
    stage.case(queue_id)["events"].to_string()
}

/// Whoever tries, and however: nothing leaves.
fn can_not_be_sent(stage: &Stage, queue_id: &str, page: &str, to: &str) {
    let body = stage.get(page).body;
    assert!(!body.contains("value=\"send\""), "{body}");
    let number = stage.number(queue_id, to);
    let named = format!("action=send&recipient={}", to.replace('@', "%40"));
    for form in ["action=send", &named, &format!("choice-{number}=send")] {
        stage.post(page, form);
        assert_eq!(stage.states(queue_id)[to], "open", "{form}");
    }
    let output = stage.posttls(&["release", queue_id]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    stage.in_queue(queue_id, "deferred");
    assert_eq!(stage.attempts(to), 0);
}

/// A text in one line, wherever it was broken.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn demanded_tls_is_never_offered_and_an_admin_overrides_it_by_name_only() {
    let policies = Policies::start();
    let stage = with(&policies);
    policies.set(
        &stage,
        "plain.test",
        "OK secure match=mx.plain.test servername=hostname",
    );
    policies.set(&stage, "refuse.test", "OK verify");
    policies.set(&stage, "broken.test", "OK encrypt");
    let mut ids = BTreeMap::new();
    for to in ["bob@plain.test", "bob@refuse.test", "bob@broken.test"] {
        let queue_id = stage.send(&[to], &to.replace('@', "-"));
        let mail = stage.notification(&queue_id);
        assert!(flat(&mail).contains("must be encrypted"), "{mail}");
        assert!(
            !mail.contains("choice=3Dsend") && !mail.contains("choice=send"),
            "{mail}"
        );
        is(&stage, &queue_id, "policy", "open");
        can_not_be_sent(&stage, &queue_id, &link(&mail), to);
        let said = stage.posttls(&["release", &queue_id]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("--override-policy"), "{said}");
        ids.insert(to, queue_id);
    }
    let detail = recipient(&stage, &ids["bob@plain.test"])["detail"].to_string();
    assert!(detail.contains("secure for [127.0.0.1]:"), "{detail}");
    assert!(detail.contains("by smtp_tls_policy_maps"), "{detail}");
    let tested = stage.said(&["test", "bob@plain.test", "--failure", "not-offered"]);
    assert!(
        tested.contains("policy: TLS is demanded: secure"),
        "{tested}"
    );
    let free = stage.said(&["test", "bob@tls.test", "--failure", "not-offered"]);
    assert!(!free.contains("policy"), "{free}");

    let queue_id = &ids["bob@plain.test"];
    stage.said(&["release", queue_id, "--override-policy"]);
    assert!(!came_over_tls(&stage.arrival("bob@plain.test")));
    stage.becomes(queue_id, "bob@plain.test", "released");
    assert!(history(&stage, queue_id).contains("whatever policy demands TLS"));
    stage.logged("policies that demand TLS are overridden by an admin");
    // Whatever the policy made of the attempt.
    policies.set(&stage, "cert.test", "OK secure");
    let queue_id = stage.send(&["bob@cert.test"], "certificate");
    is(&stage, &queue_id, "policy", "open");
    stage.in_queue(&queue_id, "deferred");
    stage.said(&["release", &queue_id, "--override-policy"]);
    stage.arrival("bob@cert.test");
    // Only sending is forbidden.
    stage.said(&["delete", &ids["bob@refuse.test"]]);
}

#[test]
fn neither_rules_nor_choices_nor_decisions_in_bulk_send_against_a_policy() {
    let policies = Policies::start();
    let stage = with(&policies);
    policies.set(&stage, "plain.test", "OK secure");
    stage.configure("remember", "days", "30");
    let new = NewConsent {
        sender: "alice@sender.test".parse().expect("an address"),
        scope: Scope::Domain,
        target: "plain.test".to_owned(),
        failures: vec![Failure::NotOffered],
        client: "192.0.2.7".to_owned(),
        expires_at: now_ms() + 86_400_000,
    };
    stage
        .store()
        .add_consent(&new)
        .expect("a remembered choice");
    let queue_id = stage.send(&["bob@plain.test"], "agreed");
    is(&stage, &queue_id, "policy", "open");
    let page = stage.sender_link("alice@sender.test");
    let answer = stage.post(&page, "action=send&seen=9999999999999");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    stage.configure("senders", "internal", "[\"elsewhere.test\"]");
    stage.configure("senders", "external", "\"release\"");
    let queue_id = stage.stuck_from("alice@sender.test", &["eve@plain.test"], "external");
    is(&stage, &queue_id, "policy", "kept");
    assert_eq!(
        stage.attempts("eve@plain.test") + stage.attempts("bob@plain.test"),
        0
    );
}

#[test]
fn a_policy_that_comes_after_the_offer_stops_what_was_decided() {
    let policies = Policies::start();
    let stage = with(&policies);
    let (queue_id, page) = stage.stuck(&["bob@plain.test"], "offered");
    assert_eq!(recipient(&stage, &queue_id)["may_send"], true);
    policies.set(&stage, "plain.test", "OK dane-only");
    // An answer counts for some seconds.
    thread::sleep(std::time::Duration::from_secs(6));
    let answer = stage.post(&page, "action=send");
    assert!(
        answer.body.contains("Encryption is demanded"),
        "{}",
        answer.body
    );
    is(&stage, &queue_id, "policy", "open");
    let history = history(&stage, &queue_id);
    assert!(
        history.contains("not sent: TLS is demanded: dane-only"),
        "{history}"
    );
    can_not_be_sent(&stage, &queue_id, &page, "bob@plain.test");
    // What was refused can be decided again.
    stage.post(&page, "action=delete");
    stage.becomes(&queue_id, "bob@plain.test", "deleted");
}

#[test]
fn a_table_that_fails_makes_nothing_weaker_and_is_asked_again() {
    let policies = Policies::start();
    let stage = with_options(&policies, |options| options.httpd(false));
    // Nobody can be asked: the sender hears at once, and truthfully.
    let queue_id = stage.send(&["bob@plain.test"], "unjudged");
    let mail = stage.notification(&queue_id);
    assert!(flat(&mail).contains("still checking whether"), "{mail}");
    assert!(!mail.contains("Our rules do not allow"), "{mail}");
    is(&stage, &queue_id, "unjudged", "open");
    policies.set(&stage, "plain.test", "TEMP out of order");
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    stage.logged("not judged, so not to be sent");
    is(&stage, &queue_id, "unjudged", "open");
    can_not_be_sent(&stage, &queue_id, &link(&mail), "bob@plain.test");
    policies.set(&stage, "plain.test", "NOTFOUND ");
    stage.wait("a judgement", || {
        let one = recipient(&stage, &queue_id);
        (one["failure"] == "not-offered" && one["may_send"] == true).then_some(())
    });
    assert!(history(&stage, &queue_id).contains("could not be judged before"));
    // The sender was told once.
    assert_eq!(stage.sandbox.inbox().len(), 1);
    policies.set(&stage, "plain.test", "TEMP out of order");
    thread::sleep(std::time::Duration::from_secs(6));
    // What can't be asked when it is to be sent waits.
    let answer = stage.post(&link(&mail), "action=send&seen=1");
    assert_eq!(answer.status, 200);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
    assert_eq!(stage.attempts("bob@plain.test"), 0);
    policies.set(&stage, "plain.test", "NOTFOUND ");
    assert!(!came_over_tls(&stage.arrival("bob@plain.test")));
}

#[test]
fn one_that_can_not_be_judged_keeps_no_other_recipient_waiting() {
    let policies = Policies::start();
    let stage = with(&policies);
    let (bob, ann, eve) = ("bob@plain.test", "ann@broken.test", "eve@refuse.test");
    let (queue_id, page) = stage.stuck(&[bob, ann, eve], "one-of-three");
    policies.set(&stage, "plain.test", "TEMP out of order");
    // An answer counts for some seconds.
    thread::sleep(std::time::Duration::from_secs(6));
    stage.in_queue(&queue_id, "deferred");
    let number = |to| stage.number(&queue_id, to);
    let form = format!(
        "choice-{}=send&choice-{}=send&choice-{}=delete",
        number(bob),
        number(ann),
        number(eve)
    );
    let answer = stage.post(&page, &form);
    assert!(!answer.body.contains("cannot be chosen"), "{answer:?}");
    assert!(!came_over_tls(&stage.arrival(ann)));
    stage.becomes(&queue_id, ann, "released");
    stage.becomes(&queue_id, eve, "deleted");
    assert_eq!(stage.states(&queue_id)[bob], "releasing");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.attempts(bob) + stage.attempts(eve), 0);
    let history = history(&stage, &queue_id);
    assert!(
        history.contains("not judged, so not to be sent"),
        "{history}"
    );
    let shown = stage.get(&page).body;
    assert!(shown.contains("could not be carried out yet"), "{shown}");
    // A mover that is killed then knows of both.
    stage.sandbox.stop_httpd();
    policies.set(&stage, "plain.test", "NOTFOUND ");
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    assert!(!came_over_tls(&stage.arrival(bob)));
    stage.becomes(&queue_id, bob, "released");
    assert_eq!(stage.sandbox.delivered(ann).len(), 1);
    stage.queues_are_empty();
}

/// Sets the flag of REQUIRETLS, as Postfix 3.11 does: 32 in the sixth field of the size record.
fn require_tls(stage: &Stage, queue_id: &str) {
    stage.in_queue(queue_id, "deferred");
    // The deferred queue is hashed.
    let instance = posttls::postfix::Instance::load(&stage.sandbox.config_dir(Instance::Encrypt));
    let id = queue_id.parse().expect("a queue ID");
    let path = instance
        .expect("an instance")
        .path(posttls::postfix::Queue::Deferred, &id);
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("a queue file");
    let mut head = vec![0; 2 + 6 * 16];
    file.read_exact_at(&mut head, 0).expect("a size record");
    assert_eq!(head[0], b'C');
    let length = usize::from(head[1]);
    let record = String::from_utf8(head[2..2 + length].to_vec()).expect("numbers");
    let start = record.rfind(char::is_whitespace).expect("fields") + 1;
    let options: u64 = record[start..].parse().expect("a number");
    let text = format!("{:>1$}", options | 32, length - start + 1);
    file.write_all_at(text.as_bytes(), (2 + start - 1) as u64)
        .expect("written");
}

#[test]
fn requiretls_is_never_sent_whoever_decides() {
    let stage =
        Stage::with(|options| options.posttls_toml("[sweep]\nseconds = 1\ncensus_minutes = 0\n"));
    // Offered before its flag was there: the move itself refuses.
    let (queue_id, page) = stage.stuck(&["bob@plain.test"], "offered");
    require_tls(&stage, &queue_id);
    stage.post(&page, "action=send");
    is(&stage, &queue_id, "require-tls", "open");
    assert!(history(&stage, &queue_id).contains("REQUIRETLS"));
    can_not_be_sent(&stage, &queue_id, &page, "bob@plain.test");
    let output = stage.posttls(&["release", &queue_id, "--override-policy"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stage.attempts("bob@plain.test"), 0);
}

/// The flag of a real message, where Postfix knows it (tests/debian/run sid "demands requiretls"); elsewhere what is sent
/// in the same way is offered.
#[test]
fn requiretls_as_postfix_itself_marks_it() {
    let stage = Stage::new();
    let config = stage.sandbox.config_dir(Instance::Encrypt);
    let settings = posttls::postfix::Settings::load(&config).expect("settings");
    let knows = settings.version().is_some_and(|version| version >= (3, 11));
    let mut command = std::process::Command::new("sendmail");
    command
        .env("MAIL_CONFIG", &config)
        .args(["-f", "alice@sender.test"]);
    if knows {
        command.args(["-O", "requiretls=yes"]);
    }
    let mut child = command
        .arg("bob@plain.test")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("sendmail");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(b"Subject: marked\n\nbody\n")
        .expect("written");
    drop(stdin);
    assert!(child.wait().expect("an end").success());
    let queue_id = stage.wait("a case", || {
        let cases = stage.store().cases(None).expect("cases");
        Some(cases.first()?.key.queue_id.to_string())
    });
    let page = link(&stage.notification(&queue_id));
    if knows {
        is(&stage, &queue_id, "require-tls", "open");
        can_not_be_sent(&stage, &queue_id, &page, "bob@plain.test");
        let output = stage.posttls(&["release", &queue_id, "--override-policy"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(stage.attempts("bob@plain.test"), 0);
    } else {
        assert_eq!(recipient(&stage, &queue_id)["may_send"], true);
    }
}

#[test]
fn parent_domains_and_services_of_their_own_are_asked_as_postfix_asks_them() {
    let stage = Stage::with(|options| {
        options.httpd(false).main_cf(
            Instance::Encrypt,
            "smtp_tls_policy_maps",
            "inline:{{.parent.test = dane-only}, {free.parent.test = may}}",
        )
    });
    let config = stage.sandbox.config_dir(Instance::Encrypt);
    let add = |name: &str, text: &str| {
        let path = config.join(name);
        let before = std::fs::read_to_string(&path).expect("a file");
        std::fs::write(&path, text.to_owned() + &before).expect("written");
    };
    // An empty next hop is the recipient's domain.
    add(
        "transport",
        "a.parent.test smtp:\nparent.test smtp:\nfree.parent.test smtp:\nstrict.test strict:\nown.test own:\n",
    );
    add(
        "master.cf",
        "strict unix - - n - - smtp -o smtp_tls_security_level=verify\n\
         own unix - - n - - smtp -o { smtp_tls_policy_maps = inline:{own.test=secure} }\n",
    );
    stage.reload(Instance::Encrypt);
    for (to, expected) in [
        (
            "x@a.parent.test",
            "dane-only for .parent.test, by smtp_tls_policy_maps",
        ),
        (
            "x@strict.test",
            "verify, by smtp_tls_security_level of the service strict/unix",
        ),
        ("x@own.test", "secure for own.test, by smtp_tls_policy_maps"),
    ] {
        let said = stage.said(&["test", to, "--failure", "not-offered"]);
        assert!(
            said.contains(&format!("policy: TLS is demanded: {expected}")),
            "{said}"
        );
        let choices =
            &stage.json(&["test", to, "--failure", "not-offered", "--json"])[0]["choices"];
        assert_eq!(choices, &serde_json::json!(["delete", "keep"]), "{to}");
    }
    // The parent's own name is not below it, and the nearer entry counts.
    for to in ["x@parent.test", "x@free.parent.test"] {
        let said = stage.json(&["test", to, "--failure", "not-offered", "--json"]);
        assert_eq!(said[0]["may_send"], true, "{to}: {said}");
    }
}

#[test]
fn the_census_sees_requiretls() {
    let stage = Stage::with(|options| {
        options
            .hook("/bin/true")
            .posttls_toml("[sweep]\nseconds = 1\ncensus_minutes = 0\n")
    });
    let queue_id = stage.send(&["bob@plain.test"], "lost");
    require_tls(&stage, &queue_id);
    stage.said(&["census"]);
    is(&stage, &queue_id, "require-tls", "open");
}

/// An SMTP server of our own that offers no TLS.
fn inner() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                stream.write_all(b"220 inner.test ESMTP\r\n").ok()?;
                let lines = BufReader::new(stream.try_clone().ok()?).lines();
                for _ in lines.map_while(Result::ok) {
                    stream.write_all(b"250 inner.test\r\n").ok()?;
                }
                Some(())
            });
        }
    });
    port
}

/// Mail that fails at a hop of ours: nobody is asked, and the admin is told which setting it is.
fn is_ours(stage: &Stage, to: &str, words: &str) {
    let queue_id = stage.send(&[to], "ours");
    stage.wait(&format!("a case of {queue_id}"), || {
        (recipient(stage, &queue_id)["failure"] == "local-fault").then_some(())
    });
    assert_eq!(stage.states(&queue_id)[to], "not-offered");
    stage.logged(&format!("TLS does not work on our side: {words}"));
    let output = stage.posttls(&["release", &queue_id, "--override-policy"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stage.sandbox.inbox().is_empty());
}

#[test]
fn a_content_filter_of_ours_is_our_fault() {
    let filter = format!("smtp:[127.0.0.1]:{}", inner());
    let stage =
        Stage::with(|options| options.main_cf(Instance::Encrypt, "content_filter", &filter));
    is_ours(
        &stage,
        "bob@tls.test",
        &format!("content_filter = {filter}"),
    );
    let check = stage.posttls(&["check"]);
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    let line = format!("content_filter = {filter} is reached with mandatory TLS, and offers none");
    assert!(
        check.contains(&format!("FAIL  encrypt instance: hops of our own: {line}")),
        "{check}"
    );
}

#[test]
fn a_relay_of_ours_is_our_fault() {
    let relay = format!("[127.0.0.1]:{}", inner());
    let stage = Stage::with(|options| {
        options
            .main_cf(
                Instance::Encrypt,
                "transport_maps",
                "inline:{posttls.invalid=posttls:}",
            )
            .main_cf(Instance::Encrypt, "relayhost", &relay)
            // A policy for its own relay is no demand of the recipient's.
            .main_cf(
                Instance::Encrypt,
                "smtp_tls_policy_maps",
                &format!("inline:{{{{{relay} = encrypt}}}}"),
            )
    });
    is_ours(
        &stage,
        "bob@elsewhere.test",
        &format!("relayhost = {relay}"),
    );
}

#[test]
fn a_fallback_relay_of_ours_is_our_fault() {
    let relay = format!("[127.0.0.1]:{}", inner());
    let stage =
        Stage::with(|options| options.main_cf(Instance::Encrypt, "smtp_fallback_relay", &relay));
    is_ours(
        &stage,
        "bob@down.test",
        &format!("smtp_fallback_relay = {relay}"),
    );
}

#[test]
fn a_next_hop_on_this_host_is_ours_unless_it_is_named_as_another_s() {
    let stage = Stage::with(|options| options.httpd(false));
    stage.configure("encrypt", "remote_hosts", "[]");
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    is_ours(
        &stage,
        "bob@plain.test",
        &format!(
            "smtp:{} leads to 127.0.0.1, on this host",
            next_hop(&stage, "plain.test")
        ),
    );
}

#[test]
fn who_has_decided_to_send_hears_that_the_fault_is_ours() {
    let stage = Stage::new();
    let bob = "bob@plain.test";
    let (queue_id, page) = stage.stuck(&[bob], "ours-by-now");
    stage.sandbox.stop_httpd();
    stage.configure("encrypt", "remote_hosts", "[]");
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    let answer = stage.post(&page, "action=send").body;
    assert!(answer.contains("cannot be chosen"), "{answer}");
    assert!(answer.contains("fault in its encryption"), "{answer}");
    stage.becomes(&queue_id, bob, "not-offered");
    // The page may have said "soon".
    let mail = stage.wait("word of it", || {
        let mut all = stage.sandbox.inbox().into_iter();
        all.find_map(|raw| {
            let mail = String::from_utf8_lossy(&raw).into_owned();
            mail.contains("Not sent as you decided").then_some(mail)
        })
    });
    assert!(flat(&mail).contains("in our own mail system"), "{mail}");
    let shown = stage.get(&page).body;
    assert!(shown.contains("Nothing to decide"), "{shown}");
    assert_eq!(stage.attempts(bob), 0);
}

/// Judged is what is there. A message that comes back after it was looked for in vain was not, and is not sent.
#[cfg(feature = "failpoints")]
#[test]
fn a_message_that_comes_back_when_it_was_to_be_judged_is_not_sent() {
    let policies = Policies::start();
    let stage = with(&policies);
    let bob = "bob@plain.test";
    let (queue_id, _) = stage.stuck(&[bob], "comes-back");
    stage.in_queue(&queue_id, "deferred");
    stage.sandbox.stop_httpd();
    policies.set(&stage, "plain.test", "OK secure");
    let store = stage.store();
    let case = stage.known(&queue_id).id;
    let recipient = store.recipients(case).expect("recipients").remove(0).id;
    let choice = [(recipient, posttls::case::Action::Send)];
    store
        .decide(case, &choice, posttls::case::Actor::Link, "::1", None)
        .expect("a decision");
    let config = stage.sandbox.config_dir(Instance::Encrypt);
    let instance = posttls::postfix::Instance::load(&config).expect("an instance");
    let id = queue_id.parse().expect("a queue ID");
    let path = instance.path(posttls::postfix::Queue::Deferred, &id);
    let aside = stage.sandbox.queue_dir(Instance::Encrypt).join("aside");
    std::fs::rename(&path, &aside).expect("put aside");
    let pause = (
        "FAILPOINTS".to_owned(),
        "engine::judged=sleep(6000)".to_owned(),
    );
    // What is owed is tried before it listens.
    let back = thread::spawn(move || {
        thread::sleep(std::time::Duration::from_secs(3));
        std::fs::rename(&aside, &path).expect("put back");
    });
    stage.sandbox.start_httpd(&[pause]).expect("a daemon");
    back.join().expect("it is back");
    stage.wait("the end of the move", || {
        let owed = store.unfinished_moves().expect("moves");
        owed.is_empty().then_some(())
    });
    assert_ne!(stage.states(&queue_id)[bob], "released");
    assert!(stage.pending(&queue_id).contains(&bob.to_owned()));
    assert_eq!(stage.attempts(bob), 0);
}
