//! What the may instance did with released recipients: over TLS after all, in plain text, deferred, returned, removed;
//! and that posttls-ear, which hears it, can neither lose a message nor have it delivered twice.

mod common;
#[path = "common/starttls.rs"]
mod starttls;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Stage, came_over_tls};
use posttls::case::store::NewConsent;
use posttls::case::{Failure, Scope};
use posttls::sandbox::Instance;
use serde_json::Value;
use starttls::{Odd, Server};

/// Has the may instance deliver mail for `domain` to the server of `like`.
fn route_may(stage: &Stage, domain: &str, like: &str) {
    let domains = &stage.sandbox.description()["domains"];
    let server = domains[like]["smtp"].as_str().expect("an address");
    let line = format!(
        "{domain} smtp:{}\n",
        server.replace("127.0.0.1", "[127.0.0.1]")
    );
    let path = stage.sandbox.config_dir(Instance::May).join("transport");
    let table = std::fs::read_to_string(&path).expect("a table");
    let others = table
        .lines()
        .filter(|old| !old.starts_with(&format!("{domain} ")));
    let others: String = others.map(|old| format!("{old}\n")).collect();
    std::fs::write(&path, line + &others).expect("a table");
    stage.reload(Instance::May);
}

fn recipient(stage: &Stage, queue_id: &str, address: &str) -> Value {
    let case = stage.case(queue_id);
    let mut all = case["recipients"].as_array().into_iter().flatten();
    all.find(|one| one["address"] == address)
        .unwrap_or_else(|| panic!("no {address} in {case}"))
        .clone()
}

/// Waits until a recipient's passage is this one, and gives what is said about it.
fn passes(stage: &Stage, queue_id: &str, address: &str, passage: &str) -> String {
    stage.wait(&format!("{address} to be {passage}"), || {
        let found = recipient(stage, queue_id, address);
        (found["passage"] == passage).then(|| {
            found["passage_detail"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
    })
}

/// The name of the only copy that was made.
fn copy_of(stage: &Stage, queue_id: &str) -> String {
    let case = stage.case(queue_id);
    let mut events = case["events"].as_array().into_iter().flatten();
    let released = events.find(|event| event["what"] == "released");
    let detail = released.and_then(|event| event["detail"].as_str());
    let name = detail.and_then(|detail| detail.rsplit(' ').next());
    name.unwrap_or_else(|| panic!("not released: {case}"))
        .to_owned()
}

fn release(stage: &Stage, to: &[&str], subject: &str) -> String {
    let (queue_id, link) = stage.stuck(to, subject);
    assert_eq!(stage.post(&link, "action=send").status, 200);
    queue_id
}

#[test]
fn plain_text_refused_starttls_and_a_failed_handshake_are_all_clear() {
    let stage = Stage::new();
    let to = ["bob@plain.test", "bob@refuse.test", "bob@broken.test"];
    let queue_id = release(&stage, &to, "clear");
    for address in to {
        let detail = passes(&stage, &queue_id, address, "clear");
        assert!(detail.contains("250 2.0.0 Ok"), "{detail}");
        assert!(!came_over_tls(&stage.arrival(address)));
    }
    let shown = stage.posttls(&["case", &queue_id]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("released, sent unencrypted"), "{shown}");
    stage.queues_are_empty();
}

#[test]
fn one_client_after_the_other_for_servers_at_one_address() {
    let stage = Stage::new();
    stage.run(
        "postconf",
        Instance::May,
        &["-F", "smtp/unix/process_limit=1"],
    );
    route_may(&stage, "refuse5.test", "tls.test");
    // The servers have one address: one that offers no STARTTLS comes after one that offered it and refused, after one
    // whose handshake failed, and after one that took mail over TLS.
    for (first, passage) in [
        ("bob@refuse.test", "clear"),
        ("bob@broken.test", "clear"),
        ("bob@refuse5.test", "encrypted"),
    ] {
        let queue_id = release(&stage, &[first, "eve@plain.test"], passage);
        passes(&stage, &queue_id, first, passage);
        passes(&stage, &queue_id, "eve@plain.test", "clear");
    }
    stage.queues_are_empty();
}

#[test]
fn over_tls_after_all_and_what_was_remembered_about_the_domain_ends() {
    let stage = Stage::new();
    let consent = |scope, target: &str| NewConsent {
        sender: "alice@sender.test".parse().expect("an address"),
        scope,
        target: target.to_owned(),
        failures: vec![Failure::Certificate],
        client: "192.0.2.7".to_owned(),
        expires_at: i64::MAX,
    };
    let store = stage.store();
    let add = |new| store.add_consent(&new).expect("a consent");
    let ended = [
        add(consent(Scope::Domain, "plain.test")),
        add(consent(Scope::Recipient, "eve@plain.test")),
    ];
    let stays = add(consent(Scope::Domain, "refuse.test"));
    route_may(&stage, "plain.test", "tls.test");
    let queue_id = release(&stage, &["bob@plain.test"], "tls");
    passes(&stage, &queue_id, "bob@plain.test", "encrypted");
    assert!(came_over_tls(&stage.arrival("bob@plain.test")));
    for id in ended {
        let consent = store.consent(id).expect("the store").expect("a consent");
        assert_eq!(
            consent.ended_why.as_deref(),
            Some("mail to plain.test was delivered over TLS")
        );
    }
    let stays = store.consent(stays).expect("the store").expect("a consent");
    assert_eq!(stays.ended_at, None);
}

/// As under Debian 13's unit of the may instance (ProcSubset=pid): the mover looks in the ear's place.
#[test]
fn an_ear_that_cannot_see_locks_hears_by_the_mover() {
    let stage = Stage::new();
    let config = stage.sandbox.config_dir(Instance::May);
    stage.run("postfix", Instance::May, &["stop"]);
    let script = format!(
        "mount --bind /dev/null /proc/locks && postfix -c {} start",
        config.display()
    );
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("unshare runs").success());
    route_may(&stage, "plain.test", "tls.test");
    let to = ["bob@plain.test", "bob@refuse.test"];
    let queue_id = release(&stage, &to, "unseen");
    passes(&stage, &queue_id, to[0], "encrypted");
    passes(&stage, &queue_id, to[1], "clear");
    stage.queues_are_empty();
}

/// Whoever asks the ear by postmap(1), as `posttls check` does, delivers nothing.
#[test]
fn a_question_by_hand_is_not_logged_as_a_deaf_ear() {
    let stage = Stage::new();
    let said = stage.said(&["check"]);
    assert!(said.contains("ear"), "{said}");
    assert!(!stage.log().contains("deaf"), "{}", stage.log());
}

/// Against RFC 3207, and some do: it was over TLS, and in such a session the ear can't know.
#[test]
fn starttls_offered_again_within_tls_is_not_called_unencrypted() {
    let stage = Stage::new();
    let mx = stage.sandbox.config_dir(Instance::Mx);
    let server = Server::start(&mx, Odd::OffersAgain);
    let path = stage.sandbox.config_dir(Instance::May).join("transport");
    let table = std::fs::read_to_string(&path).expect("a table");
    let others = table.lines().filter(|line| !line.starts_with("plain."));
    let others: String = others.map(|line| format!("{line}\n")).collect();
    let line = format!("plain.test smtp:[127.0.0.1]:{}\n", server.port);
    std::fs::write(&path, line + &others).expect("a table");
    stage.reload(Instance::May);
    for number in 0..4 {
        let recipient = format!("bob{number}@plain.test");
        let queue_id = release(&stage, &[&recipient], &format!("again{number}"));
        passes(&stage, &queue_id, &recipient, "sent");
    }
    assert_eq!(server.taken(), 4);
    stage.queues_are_empty();
}

#[test]
fn one_message_over_tls_and_in_plain_text() {
    common::seen_in_time(|_| fifty_in_both_ways());
}

/// Was heard of each of fifty recipients how the message went out to it?
fn fifty_in_both_ways() -> bool {
    let stage = Stage::new();
    route_may(&stage, "refuse.test", "tls.test");
    let to: Vec<String> = (0..50)
        .map(|number| match number % 2 {
            0 => format!("u{number}@plain.test"),
            _ => format!("u{number}@refuse.test"),
        })
        .collect();
    let all: Vec<&str> = to.iter().map(String::as_str).collect();
    let queue_id = release(&stage, &all, "mixed");
    let mut all_heard = true;
    for address in &to {
        let wanted = if address.ends_with("@plain.test") {
            "clear"
        } else {
            "encrypted"
        };
        // "sent" where it could not be told; never the other way.
        let heard = stage.wait(&format!("{address} to be {wanted}, or sent"), || {
            let passage = recipient(&stage, &queue_id, address)["passage"].clone();
            let sent = passage == "sent";
            (sent || passage == wanted).then_some(!sent)
        });
        all_heard &= heard;
        stage.arrival(address);
        assert_eq!(stage.arrivals(address).len(), 1);
    }
    stage.queues_are_empty();
    all_heard
}

#[test]
fn deferred_with_the_reason_and_then_sent() {
    let stage = Stage::new();
    route_may(&stage, "plain.test", "down.test");
    let queue_id = release(&stage, &["bob@plain.test"], "deferred");
    let detail = passes(&stage, &queue_id, "bob@plain.test", "deferred");
    assert!(detail.contains("Connection refused"), "{detail}");
    route_may(&stage, "plain.test", "plain.test");
    stage.run("postqueue", Instance::May, &["-f"]);
    passes(&stage, &queue_id, "bob@plain.test", "clear");
    stage.queues_are_empty();
}

#[test]
fn returned_by_the_server_removed_by_an_admin_and_not_delivered_in_time() {
    common::seen_in_time(|_| returned_and_removed());
}

/// Is a recipient known to be returned, or did nobody see how it ended?
fn is_returned(stage: &Stage, queue_id: &str, address: &str) -> bool {
    stage.wait(&format!("{address} to be returned"), || {
        let found = recipient(stage, queue_id, address);
        let seen = found["passage"] == "returned";
        (seen || found["passage_detail"] == "nobody saw how it ended").then_some(seen)
    })
}

/// Was seen how each of them ended?
fn returned_and_removed() -> bool {
    let stage = Stage::new();
    route_may(&stage, "plain.test", "tls.test");
    let recipients = stage.sandbox.config_dir(Instance::Mx).join("recipients");
    std::fs::write(recipients, "bob@plain.test 550 5.1.1 no such user\n").expect("a table");
    stage.reload(Instance::Mx);
    let queue_id = release(&stage, &["bob@plain.test"], "bounced");
    if !is_returned(&stage, &queue_id, "bob@plain.test") {
        return false;
    }

    route_may(&stage, "refuse.test", "down.test");
    let queue_id = release(&stage, &["eve@refuse.test"], "removed");
    passes(&stage, &queue_id, "eve@refuse.test", "deferred");
    let copy = copy_of(&stage, &queue_id);
    stage.run("postsuper", Instance::May, &["-d", &copy]);
    passes(&stage, &queue_id, "eve@refuse.test", "removed");

    let queue_id = release(&stage, &["ann@refuse.test"], "expired");
    passes(&stage, &queue_id, "ann@refuse.test", "deferred");
    let lifetime = "maximal_queue_lifetime=1s";
    stage.run("postconf", Instance::May, &["-e", lifetime]);
    stage.reload(Instance::May);
    stage.run("postqueue", Instance::May, &["-f"]);
    if !is_returned(&stage, &queue_id, "ann@refuse.test") {
        return false;
    }
    let detail = passes(&stage, &queue_id, "ann@refuse.test", "returned");
    assert!(detail.starts_with("not delivered in time"), "{detail}");
    true
}

#[test]
fn while_no_mover_runs_the_ear_hears_all_the_same() {
    let stage = Stage::new();
    route_may(&stage, "plain.test", "down.test");
    let queue_id = release(&stage, &["bob@plain.test"], "down");
    passes(&stage, &queue_id, "bob@plain.test", "deferred");
    stage.sandbox.stop_httpd();
    route_may(&stage, "plain.test", "plain.test");
    stage.run("postqueue", Instance::May, &["-f"]);
    stage.arrival("bob@plain.test");
    stage.queues_are_empty();
    stage.sandbox.start_httpd(&[]).expect("posttls-httpd");
    passes(&stage, &queue_id, "bob@plain.test", "clear");
}

#[test]
fn without_an_ear_it_is_sent_and_without_a_mover_nobody_saw() {
    let stage = Stage::with(|options| options.ear(false));
    let queue_id = release(&stage, &["bob@plain.test"], "deaf");
    let detail = passes(&stage, &queue_id, "bob@plain.test", "sent");
    assert!(detail.contains("nobody heard whether over TLS"), "{detail}");

    route_may(&stage, "plain.test", "down.test");
    let queue_id = release(&stage, &["eve@plain.test"], "unseen");
    passes(&stage, &queue_id, "eve@plain.test", "deferred");
    stage.sandbox.stop_httpd();
    route_may(&stage, "plain.test", "plain.test");
    stage.run("postqueue", Instance::May, &["-f"]);
    stage.arrival("eve@plain.test");
    stage.queues_are_empty();
    stage.sandbox.start_httpd(&[]).expect("posttls-httpd");
    stage.wait("a word that nobody saw it", || {
        let found = recipient(&stage, &queue_id, "eve@plain.test");
        (found["passage"].is_null() && found["passage_detail"] == "nobody saw how it ended")
            .then_some(())
    });
    assert!(
        stage
            .store()
            .copies_under_way()
            .expect("the store")
            .is_empty()
    );
}

/// Puts a program in the place of posttls-ear that dies at the first question about this table.
fn ear_that_dies_at(stage: &Stage, table: &str) -> PathBuf {
    let program = stage.sandbox.program("posttls-ear");
    std::fs::rename(&program, program.with_extension("good")).expect("the ear");
    let script = format!(
        "#!/usr/bin/perl\nuse IO::Handle; $| = 1; my $all = '';\n\
         while (sysread(STDIN, my $part, 4096)) {{ $all .= $part;\n\
         while ($all =~ s/^(\\d+):// ) {{ my $n = $1; while (length($all) <= $n) {{ sysread(STDIN, $part, 4096) or exit 1; $all .= $part }}\n\
         my $query = substr($all, 0, $n, ''); substr($all, 0, 1, '');\n\
         kill 'KILL', $$ if $query =~ /^{table} /; syswrite(STDOUT, '9:NOTFOUND ,') }} }}\n"
    );
    std::fs::write(&program, script).expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    program
}

fn mend(program: &PathBuf) {
    std::fs::rename(program.with_extension("good"), program).expect("the ear");
}

#[test]
fn an_ear_that_dies_after_the_last_reply_changes_nothing() {
    let stage = Stage::new();
    ear_that_dies_at(&stage, "status");
    stage.reload(Instance::May);
    let to = ["bob@plain.test", "bob@refuse.test"];
    let queue_id = release(&stage, &to, "dead");
    for address in to {
        stage.arrival(address);
        passes(&stage, &queue_id, address, "sent");
    }
    stage.queues_are_empty();
    stage.run("postqueue", Instance::May, &["-f"]);
    assert_eq!(to.map(|address| stage.arrivals(address).len()), [1, 1]);
    assert!(stage.sandbox.log(Instance::May).contains("lookup error"));
}

#[test]
fn an_ear_that_dies_before_the_message_is_handed_over_delays_it_only() {
    for table in ["reply", "ehlo"] {
        let stage = Stage::new();
        // In the sandbox the notification takes the same way.
        let (queue_id, link) = stage.stuck(&["bob@plain.test"], table);
        let program = ear_that_dies_at(&stage, table);
        stage.reload(Instance::May);
        assert_eq!(stage.post(&link, "action=send").status, 200);
        let detail = passes(&stage, &queue_id, "bob@plain.test", "deferred");
        assert!(detail.contains("local data error"), "{detail}");
        assert!(stage.arrivals("bob@plain.test").is_empty());
        mend(&program);
        stage.reload(Instance::May);
        stage.run("postqueue", Instance::May, &["-f"]);
        passes(&stage, &queue_id, "bob@plain.test", "clear");
        stage.queues_are_empty();
        stage.arrival("bob@plain.test");
        assert_eq!(stage.arrivals("bob@plain.test").len(), 1);
    }
}

#[test]
fn an_ear_answers_while_the_store_is_locked_and_when_it_cannot_be_opened() {
    let stage = Stage::new();
    let database = stage.dir().join("state/posttls.db");
    let queue_id = {
        route_may(&stage, "plain.test", "down.test");
        let queue_id = release(&stage, &["bob@plain.test"], "locked");
        passes(&stage, &queue_id, "bob@plain.test", "deferred");
        queue_id
    };
    let lock = rusqlite::Connection::open(&database).expect("the database");
    lock.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    route_may(&stage, "plain.test", "plain.test");
    stage.run("postqueue", Instance::May, &["-f"]);
    stage.arrival("bob@plain.test");
    stage.queues_are_empty();
    lock.execute_batch("ROLLBACK").expect("the lock");
    // Whichever of the two had waited for the store had it first.
    let said = passes(&stage, &queue_id, "bob@plain.test", "clear");
    assert!(said.contains("queued as"), "{said}");
    assert_eq!(stage.arrivals("bob@plain.test").len(), 1);
}
