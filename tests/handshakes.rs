//! Handshakes on real Postfix: servers that hang up at every step of them, what Postfix says of each, and whether plain text
//! would help; and handshakes that fail with all domains at once, since it is our own side.

mod common;
#[path = "common/starttls.rs"]
mod starttls;

use common::Stage;
use posttls::sandbox::Instance;
use starttls::{Odd, Server};

/// Has an instance deliver mail for `domain` to this port.
fn route(stage: &Stage, instance: Instance, domain: &str, port: u16) {
    let path = stage.sandbox.config_dir(instance).join("transport");
    let table = std::fs::read_to_string(&path).expect("a table");
    let others = table
        .lines()
        .filter(|old| !old.starts_with(&format!("{domain} ")));
    let others: String = others.map(|old| format!("{old}\n")).collect();
    let line = format!("{domain} smtp:[127.0.0.1]:{port}\n");
    std::fs::write(&path, line + &others).expect("a table");
    stage.reload(instance);
}

/// What Postfix said of the last attempt at this recipient.
fn said(stage: &Stage, instance: Instance, to: &str) -> Option<String> {
    let log = stage.sandbox.log(instance);
    let mut lines = log.lines().rev();
    let line = lines.find(|line| line.contains(&format!("to=<{to}>")) && line.contains("dsn="))?;
    line.split_once("dsn=").map(|(_, said)| said.to_owned())
}

#[test]
fn a_server_that_hangs_up_before_the_handshake_is_done_is_a_failed_handshake_and_plain_text_helps()
{
    let stage = Stage::new();
    for (how, domain) in [
        (Odd::HangsUpAfterReady, "ready.test"),
        (Odd::HangsUpAtHello, "hello.test"),
    ] {
        let server = Server::start(&stage.sandbox.config_dir(Instance::Mx), how);
        for instance in [Instance::Encrypt, Instance::May] {
            route(&stage, instance, domain, server.port);
        }
        let to = format!("bob@{domain}");
        let (queue_id, link) = stage.stuck(&[&to], domain);
        let offered = stage.case(&queue_id)["recipients"][0].clone();
        assert_eq!(offered["failure"], "handshake-failed", "{how:?} {offered}");
        assert_eq!(offered["may_send"], true, "{how:?} {offered}");
        assert_eq!(server.taken(), 0);
        assert_eq!(stage.post(&link, "action=send").status, 200);
        stage.wait("the mail in plain text", || {
            (server.taken() == 1).then_some(())
        });
    }
}

#[test]
fn a_server_that_hangs_up_at_starttls_or_within_tls_is_no_tls_failure() {
    let stage = Stage::new();
    let in_ehlo = "4.4.2, status=deferred (lost connection with 127.0.0.1[127.0.0.1] while performing the EHLO handshake)";
    // The words within TLS are those without any.
    for (how, domain, words) in [
        (Odd::HangsUpAtOnce, "once.test", in_ehlo),
        (Odd::HangsUpAfterHandshake, "after.test", in_ehlo),
        (
            Odd::HangsUpAtCommand,
            "command.test",
            "4.4.2, status=deferred (lost connection with 127.0.0.1[127.0.0.1] while receiving the STARTTLS response)",
        ),
    ] {
        let server = Server::start(&stage.sandbox.config_dir(Instance::Mx), how);
        route(&stage, Instance::Encrypt, domain, server.port);
        let to = format!("bob@{domain}");
        stage.send(&[&to], domain);
        let found = stage.wait("an attempt", || said(&stage, Instance::Encrypt, &to));
        assert_eq!(found, words, "{how:?}");
        stage.wait("its classification", || {
            let log = stage.log();
            log.lines()
                .any(|line| line.contains(&to) && line.contains("failure=not-tls"))
                .then_some(())
        });
    }
    assert!(stage.sandbox.inbox().is_empty());
}

#[test]
fn the_may_instance_falls_back_within_tls_but_not_at_starttls() {
    let stage = Stage::new();
    let mx = stage.sandbox.config_dir(Instance::Mx);
    let servers =
        [Odd::HangsUpAfterHandshake, Odd::HangsUpAtCommand].map(|how| Server::start(&mx, how));
    for (server, domain) in servers.iter().zip(["plain.test", "refuse.test"]) {
        route(&stage, Instance::May, domain, server.port);
        let (_, link) = stage.stuck(&[&format!("bob@{domain}")], domain);
        assert_eq!(stage.post(&link, "action=send").status, 200);
    }
    stage.wait("the mail in plain text", || {
        (servers[0].taken() == 1).then_some(())
    });
    let words = stage.wait("an attempt", || {
        said(&stage, Instance::May, "bob@refuse.test")
    });
    assert!(
        words.contains("while receiving the STARTTLS response"),
        "{words}"
    );
    assert_eq!(servers[1].taken(), 0);
}

/// Mails of `told` with this subject.
fn alerts(stage: &Stage) -> Vec<String> {
    let mails = stage.mails().into_iter();
    let alerts = mails.filter(|mail| mail.subject.contains("TLS handshakes fail"));
    alerts.map(|mail| mail.text).collect()
}

const PROTOCOLS: &str = "smtp_tls_mandatory_protocols";

#[test]
fn a_bad_protocol_list_of_our_own_is_the_admins_matter_and_nothing_is_offered_until_it_is_over() {
    let stage = Stage::configured(&[
        ("notification", "admin_address", "\"admin@sender.test\""),
        ("sweep", "seconds", "1"),
    ]);
    // Every server here takes mail over TLS: nothing is wrong with any of them.
    let domains = ["one.test", "two.test", "three.test", "four.test"];
    for domain in domains.iter().chain(&["five.test", "six.test"]) {
        stage.add_domain(domain, "tls.test");
    }
    let set = |protocols: &str| {
        let setting = format!("{PROTOCOLS} = {protocols}");
        stage.run("postconf", Instance::Encrypt, &["-e", &setting]);
        stage.reload(Instance::Encrypt);
    };
    set("TLSv1.2, !TLSv1.2");
    // Two are one sender's, and two another's: none of them brings it about alone.
    let senders = ["alice", "alice", "carol", "carol"];
    for (domain, sender) in domains.iter().zip(senders) {
        let from = format!("{sender}@sender.test");
        let queue_id = stage.stuck_from(&from, &[&format!("bob@{domain}")], domain);
        let one = stage.case(&queue_id)["recipients"][0].clone();
        assert_eq!(one["failure"], "handshake-failed", "{one}");
        assert_eq!(one["may_send"], true, "{one}");
    }
    // As few domains say nothing; nor do the same domain again, and more of the same sender.
    stage.stuck(&["eve@one.test"], "again");
    stage.stuck(&["eve@five.test", "eve@six.test"], "more");
    assert!(alerts(&stage).is_empty());

    let queue_id = stage.stuck_from("dave@sender.test", &["bob@tls.test"], "fifth");
    stage.notification(&queue_id);
    let suspected = stage.case(&queue_id)["recipients"][0].clone();
    assert_eq!(suspected["failure"], "unjudged", "{suspected}");
    assert_eq!(suspected["may_send"], false, "{suspected}");
    let detail = suspected["detail"].as_str().expect("words");
    assert!(detail.contains("perhaps it is our side"), "{detail}");
    let told = stage.wait("the alert", || alerts(&stage).pop());
    assert!(
        told.contains(&queue_id) && told.contains(PROTOCOLS),
        "{told}"
    );
    // Once only; and nobody can send what waits.
    let (another, link) = stage.stuck(&["eve@tls.test"], "sixth");
    stage.post(&link, "action=send");
    assert_eq!(stage.states(&another)["eve@tls.test"], "open");
    assert_eq!(alerts(&stage).len(), 1);

    // Mended, one delivery over TLS ends the suspicion, and what was kept back for it is judged without another attempt.
    // In words that Postfix knew before 3.6, too.
    set("!SSLv2, !SSLv3, !TLSv1, !TLSv1.1");
    stage.flush(&another);
    let mail = stage.arrival("eve@tls.test");
    assert!(common::came_over_tls(&mail), "{mail}");
    stage.wait("another judgement", || {
        let one = stage.case(&queue_id)["recipients"][0].clone();
        (one["failure"] == "handshake-failed" && one["may_send"] == true).then_some(())
    });
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(alerts(&stage).len(), 1);
}
