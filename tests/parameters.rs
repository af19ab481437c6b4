//! Postfix with parameters that are not its defaults, as far as they change what PostTLS reads: a notice, a queue file, a
//! listing. Each time a sender is told, opens the page and decides, and the message arrives.

mod common;

use common::Stage;
use posttls::sandbox::{Instance, Mail, UpOptions};

/// A sandbox whose encrypt instance has these settings.
fn stage(settings: &[(&str, &str)]) -> Stage {
    Stage::with(|mut options: UpOptions| {
        for (name, value) in settings {
            let setting = (Instance::Encrypt, (*name).to_owned(), (*value).to_owned());
            options.main_cf.push(setting);
        }
        options
    })
}

const DATA: &[u8] = b"From: alice@sender.test\r\nSubject: parameters\r\n\r\nbody\r\n";

fn decides_and_arrives(settings: &[(&str, &str)]) {
    let stage = stage(settings);
    let (queue_id, link) = stage.stuck(&["bob@plain.test", "eve@refuse.test"], "parameters");
    let case = stage.case(&queue_id);
    let recipients = case["recipients"].as_array().expect("recipients");
    for (to, failure) in [
        ("bob@plain.test", "not-offered"),
        ("eve@refuse.test", "refused"),
    ] {
        let of = recipients.iter().find(|one| one["address"] == to);
        assert_eq!(of.expect(to)["failure"], failure, "{settings:?}");
    }
    assert_eq!(stage.post(&link, "action=send").status, 200);
    assert!(
        stage
            .arrival("bob@plain.test")
            .contains("body of parameters")
    );
    stage.arrival("eve@refuse.test");
    stage.queues_are_empty();
}

#[test]
fn names_that_postfix_puts_into_notices() {
    for settings in [
        &[("mail_name", "Pöst fix (ours)")][..],
        &[("double_bounce_sender", "twice"), ("mail_name", "X")],
        &[
            ("empty_address_recipient", "nobody"),
            ("myorigin", "origin.test"),
        ],
    ] {
        decides_and_arrives(settings);
    }
}

#[test]
fn forms_of_queues_logs_and_reports() {
    for settings in [
        &[
            (
                "hash_queue_names",
                "deferred, defer, hold, incoming, active",
            ),
            ("hash_queue_depth", "3"),
            ("enable_long_queue_ids", "yes"),
        ][..],
        &[
            ("backwards_bounce_logfile_compatibility", "no"),
            ("bounce_size_limit", "1"),
            ("enable_original_recipient", "no"),
        ],
        &[
            ("smtputf8_enable", "no"),
            ("disable_mime_input_processing", "yes"),
            ("maximal_queue_lifetime", "2h"),
        ],
    ] {
        decides_and_arrives(settings);
    }
}

/// Without SMTPUTF8 Postfix takes any octets, and notices have a question mark for each that is not ASCII; the queue file
/// has the octets.
#[test]
fn one_odd_recipient_does_not_hold_up_the_others() {
    let stage = stage(&[("smtputf8_enable", "no")]);
    let to = ["bob@plain.test", "jürgen@plain.test", "eve@plain.test"];
    let mail = Mail::new("alice@sender.test", &to, DATA);
    let queue_id = stage
        .sandbox
        .submit_mail(Instance::Encrypt, &mail)
        .unwrap_or_else(|error| panic!("{error}"));
    let link = common::link(&stage.notification(&queue_id));
    let states = stage.states(&queue_id);
    let names: Vec<&str> = states.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["bob@plain.test", "eve@plain.test", "jürgen@plain.test"]
    );
    let page = stage.get(&link).body;
    assert!(
        page.contains("jürgen@plain.test") && !page.contains("j??"),
        "{page}"
    );
    let form = "action=send&recipient=bob%40plain.test";
    assert_eq!(stage.post(&link, form).status, 200);
    stage.arrival("bob@plain.test");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(
        stage.pending(&queue_id),
        ["jürgen@plain.test", "eve@plain.test"]
    );
    assert_eq!(stage.post(&link, "action=delete").status, 200);
    stage.becomes(&queue_id, "eve@plain.test", "deleted");
    stage.becomes(&queue_id, "jürgen@plain.test", "deleted");
    stage.queues_are_empty();
}

#[test]
fn a_sender_with_letters_of_its_own_is_told_without_smtputf8() {
    let stage = Stage::with(|mut options: UpOptions| {
        for instance in Instance::ALL {
            let setting = (instance, "smtputf8_enable".to_owned(), "no".to_owned());
            options.main_cf.push(setting);
        }
        options
    });
    let mail = Mail::new("jürgen@sender.test", &["bob@plain.test"], DATA);
    let queue_id = stage
        .sandbox
        .submit_mail(Instance::Encrypt, &mail)
        .unwrap_or_else(|error| panic!("{error}"));
    let link = common::link(&stage.notification(&queue_id));
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
}
