//! Mail that fails at a hop of our own: no sender is asked, and the admin hears which setting leads there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::thread;

use posttls::sandbox::Instance;

use crate::common::Stage;
use crate::{flat, next_hop, recipient};

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
fn a_relay_that_takes_all_mail_by_a_transport_table_is_ours_as_relayhost_is() {
    let hop = format!("smtp:[127.0.0.1]:{}", inner());
    let stage = Stage::with(|options| {
        options.main_cf(
            Instance::Encrypt,
            "transport_maps",
            &format!("inline:{{posttls.invalid=posttls:, {{*={hop}}}}}"),
        )
    });
    is_ours(
        &stage,
        "bob@elsewhere.test",
        &format!("{hop}, which takes mail for all domains, is a relay of our own"),
    );
    let check = stage.posttls(&["check"]);
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    let line = format!(
        "hops of our own: {hop}, which takes mail for all domains, is reached with mandatory TLS, and offers none"
    );
    assert!(check.contains(&line), "{check}");
}

#[test]
fn a_private_address_says_nothing_of_whose_server_it_is() {
    let stage = Stage::with(|options| options.httpd(false));
    stage.configure("encrypt", "remote_hosts", "[]");
    let table = stage
        .sandbox
        .config_dir(Instance::Encrypt)
        .join("transport");
    let before = std::fs::read_to_string(&table).expect("a table");
    let routes = "partner.test smtp:[10.255.254.253]\nnear.test smtp:[127.0.0.1]\n";
    std::fs::write(&table, routes.to_owned() + &before).expect("written");
    stage.reload(Instance::Encrypt);
    let test = |to| stage.json(&["test", to, "--failure", "not-offered", "--json"])[0].clone();
    let partner = test("bob@partner.test");
    assert_eq!(partner["may_send"], true, "{partner}");
    let near = test("bob@near.test");
    assert_eq!(near["may_send"], false, "{near}");
    let why = near["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("local-fault: "), "{near}");
}

#[test]
fn who_has_decided_to_send_hears_that_the_fault_is_ours() {
    let stage = Stage::new();
    let bob = "bob@plain.test";
    let (queue_id, page) = stage.stuck(&[bob], "ours-by-now");
    // Its server is our relay from now on. The mover goes on: a new one would look at the message before the click.
    let relay = format!("relayhost = {}", next_hop(&stage, "plain.test"));
    stage.run("postconf", Instance::Encrypt, &["-e", &relay]);
    stage.reload(Instance::Encrypt);
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
