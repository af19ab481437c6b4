//! How recipients end in the encrypt instance while nobody decides about them: seen by events, at the moment.

mod common;

use common::Stage;
use posttls::sandbox::Instance;
use rustix::process::Signal;

fn detail(stage: &Stage, queue_id: &str, what: &str) -> String {
    let case = stage.case(queue_id);
    let mut events = case["events"].as_array().into_iter().flatten();
    let found = events.find(|event| event["what"] == what);
    found
        .and_then(|event| event["detail"].as_str())
        .unwrap_or_else(|| panic!("no {what} in {case}"))
        .to_owned()
}

#[test]
fn delivered_after_all_to_the_only_recipient() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "late");
    stage.watched(&queue_id);
    stage.route("plain.test", "tls.test");
    stage.flush(&queue_id);
    stage.closed(&queue_id, "delivered");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "delivered");
    stage.logged(&format!(
        "{queue_id}: to=<bob@plain.test>, status=delivered"
    ));
    stage.queues_are_empty();
    stage.arrival("bob@plain.test");
    assert_eq!(stage.arrivals("bob@plain.test").len(), 1);
}

#[test]
fn bounced_by_the_server_one_alone_and_one_of_two() {
    common::seen_in_time(|_| bounced());
}

/// Was seen how each of them ended?
fn bounced() -> bool {
    let stage = Stage::new();
    stage.add_domain("new.test", "plain.test");
    stage.add_domain("other.test", "plain.test");
    let (alone, _) = stage.stuck(&["nouser@new.test"], "alone");
    let (both, _) = stage.stuck(&["nouser@new.test", "bob@other.test"], "both");
    stage.watched(&alone);
    stage.watched(&both);
    std::fs::write(
        stage.sandbox.config_dir(Instance::Mx).join("recipients"),
        "nouser@new.test 550 5.1.1 no such user\n",
    )
    .expect("a table");
    stage.reload(Instance::Mx);
    let path = stage
        .sandbox
        .config_dir(Instance::Encrypt)
        .join("transport");
    let table = std::fs::read_to_string(&path).expect("a table");
    let domains = &stage.sandbox.description()["domains"];
    let server = |domain: &str| {
        let address = domains[domain]["smtp"].as_str().expect("an address");
        address.replace("127.0.0.1:", "[127.0.0.1]:")
    };
    let (plain, tls) = (server("plain.test"), server("tls.test"));
    let swap = |line: &str| {
        if line.starts_with("new.test") || line.starts_with("other.test") {
            line.replace(&plain, &tls)
        } else {
            line.to_owned()
        }
    };
    let table: Vec<String> = table.lines().map(swap).collect();
    std::fs::write(&path, table.join("\n") + "\n").expect("a table");
    stage.reload(Instance::Encrypt);
    let ended = |queue_id: &String, exact: &str| {
        stage.flush(queue_id);
        stage.wait("the end of the case", || {
            (stage.case(queue_id)["state"] == "closed").then_some(())
        });
        let why = stage.case(queue_id)["closed_why"].clone();
        assert!(why == exact || why == "gone", "{why}");
        why == exact
    };
    if !ended(&alone, "returned") {
        return false;
    }
    if !detail(&stage, &alone, "returned").contains("no such user") {
        return false;
    }
    if !ended(&both, "mixed") {
        return false;
    }
    let states = stage.states(&both);
    assert_eq!(states["nouser@new.test"], "returned");
    assert_eq!(states["bob@other.test"], "delivered");
    stage.queues_are_empty();
    true
}

#[test]
fn removed_by_an_admin_from_the_deferred_queue_and_from_hold() {
    let stage = Stage::new();
    let (first, _) = stage.stuck(&["bob@plain.test"], "first");
    let (second, _) = stage.stuck(&["eve@refuse.test"], "second");
    for queue_id in [&first, &second] {
        stage.watched(queue_id);
        stage.in_queue(queue_id, "deferred");
    }
    stage.run("postsuper", Instance::Encrypt, &["-d", &first]);
    stage.run("postsuper", Instance::Encrypt, &["-h", &second]);
    stage.run("postsuper", Instance::Encrypt, &["-d", &second]);
    stage.closed(&first, "removed");
    stage.closed(&second, "removed");
}

#[test]
fn not_delivered_in_time() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@plain.test", "eve@refuse.test"], "expired");
    stage.watched(&queue_id);
    let settings = "maximal_queue_lifetime=1s";
    stage.run("postconf", Instance::Encrypt, &["-e", settings]);
    stage.reload(Instance::Encrypt);
    stage.flush(&queue_id);
    stage.closed(&queue_id, "returned");
    assert!(detail(&stage, &queue_id, "returned").starts_with("not delivered in time"));
    stage.queues_are_empty();
}

#[test]
fn expired_by_an_admin() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@plain.test", "eve@refuse.test"], "by-force");
    stage.watched(&queue_id);
    stage.in_queue(&queue_id, "deferred");
    // Postfix returns it at its next attempt, long before its time.
    stage.run("postsuper", Instance::Encrypt, &["-e", &queue_id]);
    stage.flush(&queue_id);
    stage.closed(&queue_id, "returned");
    assert!(detail(&stage, &queue_id, "returned").starts_with("not delivered in time"));
    stage.queues_are_empty();
}

/// Stops the mover until it is dropped.
struct Asleep<'a>(&'a Stage);

impl<'a> Asleep<'a> {
    fn new(stage: &'a Stage) -> Self {
        stage.signal_mover(Signal::STOP);
        Self(stage)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.signal_mover(Signal::CONT);
    }
}

/// A busy host: the mover hears of it when the log that tells is gone. It keeps that of the last attempt.
#[test]
fn expired_while_the_mover_sleeps_is_known_all_the_same() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "asleep");
    stage.watched(&queue_id);
    stage.in_queue(&queue_id, "deferred");
    let asleep = Asleep::new(&stage);
    stage.run("postsuper", Instance::Encrypt, &["-e", &queue_id]);
    stage.flush(&queue_id);
    stage.wait("the message to be returned", || {
        let queue = stage.sandbox.queue_of(Instance::Encrypt, &queue_id);
        queue.is_none().then_some(())
    });
    drop(asleep);
    stage.closed(&queue_id, "returned");
    assert!(detail(&stage, &queue_id, "returned").starts_with("not delivered in time"));
}

/// Marks are seen before the events that tell of the log behind them.
#[cfg(feature = "failpoints")]
#[test]
fn returned_before_its_log_is_heard_of_is_not_called_delivered() {
    let stage =
        Stage::with(|options| options.main_cf(Instance::Encrypt, "maximal_queue_lifetime", "6s"));
    stage.sandbox.stop_httpd();
    let slow = "lookout::gathered=sleep(1000);lookout::record=sleep(500)";
    let slow = ("FAILPOINTS".to_owned(), slow.to_owned());
    stage.sandbox.start_httpd(&[slow]).expect("it starts");
    let messages: Vec<String> = (0..4)
        .map(|number| {
            let to = format!("bob{number}@plain.test");
            stage.send(&[&to], &format!("unheard{number}"))
        })
        .collect();
    for queue_id in &messages {
        stage.notification(queue_id);
        stage.watched(queue_id);
        stage.in_queue(queue_id, "deferred");
    }
    let until = stage.case(&messages[3])["retry_until"].as_i64();
    let until = until.expect("a time") * 1000;
    stage.wait("the end of their time", || {
        (posttls::case::store::now_ms() > until).then_some(())
    });
    // One of them ends while the mover is late.
    for queue_id in &messages {
        stage.flush(queue_id);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    for queue_id in &messages {
        stage.wait("the end of the case", || {
            (stage.case(queue_id)["state"] == "closed").then_some(())
        });
        let why = stage.case(queue_id)["closed_why"].clone();
        assert!(why == "returned" || why == "gone", "{why}");
    }
}

#[test]
fn taken_in_anew_under_another_queue_id() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "anew");
    stage.watched(&queue_id);
    stage.in_queue(&queue_id, "deferred");
    stage.run("postsuper", Instance::Encrypt, &["-r", &queue_id]);
    stage.closed(&queue_id, "gone");
    assert!(detail(&stage, &queue_id, "gone").contains("another queue ID"));
}

#[test]
fn many_messages_end_in_all_ways_and_each_is_known() {
    common::seen_in_time(|_| fifty_end());
}

/// Was seen how each of fifty recipients ended? What was missed is never called by a wrong name.
fn fifty_end() -> bool {
    let stage = Stage::new();
    stage.run(
        "postconf",
        Instance::Mx,
        &["-e", "smtpd_client_connection_count_limit=0"],
    );
    let to: Vec<String> = (0..50)
        .map(|number| match number % 5 {
            0 => format!("nouser{number}@plain.test"),
            _ => format!("user{number}@plain.test"),
        })
        .collect();
    let all: Vec<&str> = to.iter().map(String::as_str).collect();
    let (queue_id, _) = stage.stuck(&all, "fifty");
    stage.watched(&queue_id);
    let table: String = to
        .iter()
        .filter(|one| one.starts_with("nouser"))
        .map(|one| format!("{one} 550 5.1.1 no such user\n"))
        .collect();
    let recipients = stage.sandbox.config_dir(Instance::Mx).join("recipients");
    std::fs::write(recipients, table).expect("a table");
    stage.reload(Instance::Mx);
    stage.route("plain.test", "tls.test");
    stage.flush(&queue_id);
    stage.wait("the end of the case", || {
        (stage.case(&queue_id)["state"] == "closed").then_some(())
    });
    stage.queues_are_empty();
    let states = stage.states(&queue_id);
    for (address, state) in &states {
        let wanted = if address.starts_with("nouser") {
            "returned"
        } else {
            "delivered"
        };
        assert!(state == wanted || state == "gone", "{address}: {state}");
    }
    states.values().all(|state| state != "gone")
}

#[test]
fn without_a_mover_nobody_sees_and_the_message_is_gone() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "unseen");
    stage.sandbox.stop_httpd();
    stage.route("plain.test", "tls.test");
    stage.flush(&queue_id);
    stage.queues_are_empty();
    stage.sandbox.start_httpd(&[]).expect("posttls-httpd");
    assert_eq!(stage.post(&link, "action=send").status, 200);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "gone");
}
