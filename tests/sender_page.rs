//! The page with all stuck messages of a sender: what it shows, what it decides, and whose messages it never touches.

mod common;

use std::time::Instant;

use common::{Stage, request};
use posttls::case::{CaseId, ConsentId, SenderId};
use posttls::sandbox::Instance;

const ALICE: &str = "alice@sender.test";
const MALLORY: &str = "mallory@sender.test";

/// The value of `seen` on a page.
fn seen(page: &str) -> String {
    let (_, rest) = page
        .split_once("name=\"seen\" value=\"")
        .unwrap_or_else(|| panic!("no mark in {page}"));
    rest.split('"').next().expect("a value").to_owned()
}

/// The form field of a recipient.
fn field(stage: &Stage, queue_id: &str, recipient: &str) -> String {
    let case = stage.known(queue_id).id;
    format!("choice-{case}-{}", stage.number(queue_id, recipient))
}

#[test]
fn a_sender_decides_about_several_messages_and_only_about_their_own() {
    let stage = Stage::new();
    let one = stage.stuck_from(ALICE, &["bob@plain.test"], "first");
    let two = stage.stuck_from(ALICE, &["carol@refuse.test", "dan@plain.test"], "second");
    let other = stage.stuck_from(MALLORY, &["eve@plain.test"], "third");
    let link = stage.sender_link(ALICE);
    let page = stage.get(&link).body;
    assert!(page.contains("2 of your messages are waiting"), "{page}");
    for shown in ["first", "second", "bob@plain.test", "carol@refuse.test"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(
        page.contains("<bdi>plain.test</bdi>: 2 recipients"),
        "{page}"
    );
    assert!(!page.contains("third") && !page.contains("eve@"), "{page}");
    // Each message has a link to its own page, which opens.
    let links: Vec<&str> = page
        .split("href=\"/c/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert_eq!(links.len(), 2);
    for token in links {
        assert_eq!(stage.get(&stage.page('c', token)).status, 200);
    }

    // A domain.
    let mark = seen(&page);
    let form = format!("action=send&domain=refuse.test&seen={mark}");
    let answer = stage.post(&link, &form);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.body.contains("Your decision has been carried out"),
        "{answer:?}"
    );
    stage.arrival("carol@refuse.test");
    assert_eq!(stage.states(&two)["carol@refuse.test"], "released");
    assert_eq!(stage.states(&two)["dan@plain.test"], "open");
    assert_eq!(stage.states(&one)["bob@plain.test"], "open");

    // A form that names one strange message decides nothing at all.
    let (dan, eve) = (
        field(&stage, &two, "dan@plain.test"),
        field(&stage, &other, "eve@plain.test"),
    );
    for strange in [
        format!("{eve}=send"),
        format!("{dan}=delete&{eve}=delete"),
        format!("{dan}=delete&choice-1-1=delete"),
        format!("{dan}9=delete"),
    ] {
        let answer = stage.post(&link, &strange);
        assert_eq!(answer.status, 400, "{strange}: {answer:?}");
        assert!(answer.body.contains("Nothing was changed"), "{answer:?}");
    }
    assert_eq!(stage.states(&two)["dan@plain.test"], "open");

    // Each.
    let answer = stage.post(&link, &format!("{dan}=delete"));
    assert!(
        answer.body.contains("One message still waits"),
        "{answer:?}"
    );
    assert_eq!(stage.states(&two)["dan@plain.test"], "deleted");

    // All: but not what came after the page was made.
    let late = stage.stuck_from(ALICE, &["frank@plain.test"], "late");
    let answer = stage.post(&link, &format!("action=send&seen={mark}"));
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.contains("One message still waits"),
        "{answer:?}"
    );
    stage.arrival("bob@plain.test");
    assert_eq!(stage.states(&late)["frank@plain.test"], "open");
    assert_eq!(stage.states(&other)["eve@plain.test"], "open");
    assert_eq!(stage.attempts("eve@plain.test"), 0);
    assert_eq!(stage.attempts("frank@plain.test"), 0);

    // "Keep trying" can be changed later.
    let page = stage.get(&link).body;
    let form = format!("action=keep&seen={}", seen(&page));
    assert!(stage.post(&link, &form).body.contains("We keep trying"));
    assert_eq!(stage.states(&late)["frank@plain.test"], "kept");
    assert!(
        stage
            .post(&link, &form)
            .body
            .contains("Nothing was changed")
    );
    let form = form.replace("keep", "send");
    assert!(stage.post(&link, &form).body.contains("Nothing more waits"));
    stage.arrival("frank@plain.test");
    let page = stage.get(&link).body;
    assert!(page.contains("nothing left to decide") && !page.contains("<form"));
    for (recipient, count) in [
        ("bob@plain.test", 1),
        ("carol@refuse.test", 1),
        ("frank@plain.test", 1),
    ] {
        assert_eq!(stage.attempts(recipient), count, "{recipient}");
    }
    // Only what was asked for is asked for by link, from an address, and on the record.
    let case = stage.case(&one);
    let decided = |event: &&serde_json::Value| event["what"] == "decided";
    let events: Vec<_> = case["events"].as_array().into_iter().flatten().collect();
    let detail = events.iter().copied().find(decided).expect("a decision")["detail"].clone();
    assert_eq!(detail, "send by link from 127.0.0.1");
    assert!(
        stage
            .log()
            .contains("decision recorded, send, by link, client=127.0.0.1")
    );
}

#[test]
fn what_may_not_go_unencrypted_does_not_and_the_page_says_so() {
    let stage = Stage::new();
    let queue_id = stage.stuck_from(ALICE, &["a@plain.test", "b@cert.test"], "mixed");
    let link = stage.sender_link(ALICE);
    let page = stage.get(&link).body;
    assert!(
        page.contains("sent to unencrypted, or not yet. If"),
        "{page}"
    );
    let answer = stage.post(&link, &format!("action=send&seen={}", seen(&page)));
    assert!(
        answer.body.contains("May not be sent to unencrypted"),
        "{answer:?}"
    );
    stage.arrival("a@plain.test");
    assert_eq!(stage.states(&queue_id)["b@cert.test"], "open");
    // Not by a form that the page does not have, either.
    let form = format!("{}=send", field(&stage, &queue_id, "b@cert.test"));
    let answer = stage.post(&link, &form);
    assert!(answer.body.contains("This cannot be chosen"), "{answer:?}");
    assert_eq!(stage.states(&queue_id)["b@cert.test"], "open");
    assert_eq!(stage.attempts("b@cert.test"), 0);
}

#[test]
fn no_other_link_opens_it_and_it_opens_nothing_else() {
    let stage = Stage::new();
    let queue_id = stage.stuck_from(ALICE, &["bob@plain.test"], "first");
    let case = stage.known(&queue_id).id;
    let sender = stage
        .store()
        .sender_id(&ALICE.parse().expect("an address"))
        .expect("a number");
    let token = stage.token(sender, 3600);
    let mark = seen(&stage.get(&stage.page('s', &token)).body);
    let forms = [
        format!("action=send&seen={mark}"),
        "action=send".to_owned(),
        "action=revoke".to_owned(),
    ];
    let mut wrong = vec![
        (stage.page('c', &token), 404),
        (stage.page('r', &token), 404),
        (stage.page('s', &stage.token(case, 3600)), 404),
        (
            stage.page('s', &stage.token(ConsentId(sender.0), 3600)),
            404,
        ),
        (
            stage.page('s', &stage.token(SenderId(sender.0 ^ 1), 3600)),
            404,
        ),
        (stage.page('r', &stage.token(ConsentId(1), 3600)), 404),
        (stage.page('c', &stage.token(CaseId(case.0 ^ 1), 3600)), 404),
        (stage.page('s', &stage.token(sender, -10)), 410),
        (stage.page('r', &stage.token(ConsentId(1), -10)), 410),
    ];
    // Another last character: one token in some ends in "A" itself.
    let other = if token.ends_with('A') { 'Q' } else { 'A' };
    let forged = format!("{}{other}", &token[..token.len() - 1]);
    wrong.push((stage.page('s', &forged), 404));
    for (url, status) in wrong {
        assert_eq!(stage.get(&url).status, status, "{url}");
        let posted: Vec<u16> = forms
            .iter()
            .map(|form| stage.post(&url, form).status)
            .collect();
        assert!(
            posted.contains(&status) && posted.iter().all(|one| [status, 400].contains(one)),
            "{url}: {posted:?}"
        );
    }
    // Looking, whatever it says, decides nothing; nor does what is no form.
    for query in ["", "?page=9", "?action=send", "?seen=1&action=delete"] {
        for method in ["GET", "HEAD"] {
            let answer = request(
                method,
                &format!("{}{query}", stage.page('s', &token)),
                &forms[0],
            );
            assert_eq!(answer.status, 200);
        }
    }
    for form in [
        "action=send",
        "action=send&seen=x",
        "action=send&seen=1&recipient=a%40b.test",
        "seen=1",
        "%",
    ] {
        assert_eq!(
            stage.post(&stage.page('s', &token), form).status,
            400,
            "{form}"
        );
    }
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    assert_eq!(stage.attempts("bob@plain.test"), 0);
}

#[test]
fn mail_about_which_the_sender_is_not_asked_is_not_shown() {
    let stage = Stage::new();
    let own = stage.stuck_from(ALICE, &["bob@plain.test"], "own");
    stage.configure("senders", "internal", "[\"elsewhere.test\"]");
    let foreign = stage.stuck_from(ALICE, &["carol@plain.test"], "foreign");
    let link = stage.sender_link(ALICE);
    let page = stage.get(&link).body;
    assert!(
        page.contains("own") && !page.contains("carol@plain.test"),
        "{page}"
    );
    let form = format!("{}=send", field(&stage, &foreign, "carol@plain.test"));
    assert_eq!(stage.post(&link, &form).status, 400);
    stage.post(&link, "action=delete&seen=99999999999999");
    assert_eq!(stage.states(&own)["bob@plain.test"], "deleted");
    assert_eq!(stage.states(&foreign)["carol@plain.test"], "kept");
    assert_eq!(stage.attempts("carol@plain.test"), 0);
}

#[test]
fn more_messages_than_fit_on_a_page_are_decided_at_once() {
    let count: usize = std::env::var("MESSAGES").map_or(60, |text| text.parse().expect("a number"));
    let stage = Stage::new();
    let queue_ids: Vec<String> = (0..count)
        .map(|number| {
            let message = format!("From: {ALICE}\r\nSubject: number {number}\r\n\r\nbody\r\n");
            let to = format!("r{number}@plain.test");
            stage
                .sandbox
                .submit(ALICE, &[&to], message.as_bytes())
                .expect("taken")
        })
        .collect();
    for queue_id in &queue_ids {
        stage.known(queue_id);
    }
    let link = stage.sender_link(ALICE);
    let page = stage.get(&link).body;
    assert!(
        page.contains(&format!("{count} of your messages")),
        "{page}"
    );
    assert!(
        page.contains(&format!("Messages 1 to 50 of {count}")),
        "{page}"
    );
    assert_eq!(page.matches("<article").count(), 50);
    assert!(page.contains("rel=\"next\"") && !page.contains("rel=\"prev\""));
    let last = count.div_ceil(50);
    for beyond in [last, last + 1, 4_000_000_000] {
        let page = stage.get(&format!("{link}?page={beyond}")).body;
        let expected = format!("Messages {} to {count} of {count}", (last - 1) * 50 + 1);
        assert!(page.contains(&expected), "{page}");
        assert!(!page.contains("rel=\"next\"") && page.contains("rel=\"prev\""));
    }
    let started = Instant::now();
    let form = format!("action=send&domain=plain.test&seen={}", seen(&page));
    let answer = stage.post(&format!("{link}?page=2"), &form);
    println!(
        "{count} messages decided, answered in {:?}",
        started.elapsed()
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("Nothing more waits"), "{answer:?}");
    assert!(answer.body.contains("?page=2"));
    // Nobody has to wait for that: another sender's click is carried out meanwhile.
    let other = stage.stuck_from(MALLORY, &["eve@plain.test"], "urgent");
    let clicked = Instant::now();
    stage.post(&stage.case_link(&other), "action=send");
    println!("another click answered in {:?}", clicked.elapsed());
    assert_eq!(stage.states(&other)["eve@plain.test"], "released");
    // One by one, in the order in which they go: patience is for each, however many there are.
    for queue_id in &queue_ids {
        stage.wait("a message to be handed over", || {
            (stage.known(queue_id).closed_why.as_deref() == Some("released")).then_some(())
        });
    }
    println!("all handed over after {:?}", started.elapsed());
    stage.wait("all to arrive", || {
        (0..count)
            .all(|number| stage.attempts(&format!("r{number}@plain.test")) > 0)
            .then_some(())
    });
    stage.queues_are_empty();
    for number in 0..count {
        assert_eq!(stage.attempts(&format!("r{number}@plain.test")), 1);
        assert_eq!(stage.arrivals(&format!("r{number}@plain.test")).len(), 1);
    }
    assert!(stage.has_nothing(Instance::May));
}

#[test]
#[cfg(feature = "failpoints")]
fn what_the_background_is_doing_just_then_is_told_as_done() {
    // Long enough for the background, which looks once a second, to come to the second message before the click does.
    let stage = Stage::with(|options| options.httpd_env("FAILPOINTS", "move::begun=sleep(300)"));
    for round in 0..4 {
        for number in 0..2 {
            let to = format!("r{round}-{number}@plain.test");
            stage.stuck_from(ALICE, &[&to], &format!("round {round}, number {number}"));
        }
        let link = stage.sender_link(ALICE);
        let form = format!("action=send&seen={}", seen(&stage.get(&link).body));
        let answer = stage.post(&link, &form);
        assert!(
            answer.body.contains("2 recipients: Handed over"),
            "{answer:?}\n{}",
            stage.log()
        );
    }
}
