//! Remembered choices on real Postfix: used without asking, counted, shown and revoked by command.

mod common;

use common::{Stage, came_over_tls};
use posttls::case::store::{NewConsent, now_ms};
use posttls::case::{ConsentId, Failure, Scope};
use serde_json::Value;

fn remember(stage: &Stage, sender: &str, scope: Scope, target: &str) -> ConsentId {
    let new = NewConsent {
        sender: sender.parse().expect("an address"),
        scope,
        target: target.to_owned(),
        failures: vec![Failure::NotOffered, Failure::Certificate],
        client: "192.0.2.7".to_owned(),
        expires_at: now_ms() + 86_400_000,
    };
    stage
        .store()
        .add_consent(&new)
        .expect("a remembered choice")
}

fn says(stage: &Stage, code: i32, arguments: &[&str]) -> String {
    let output = stage.posttls(arguments);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {output:?}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn list(stage: &Stage, more: &[&str]) -> Vec<Value> {
    let said = says(stage, 0, &[&["consents", "list", "--json"], more].concat());
    let json: Value = serde_json::from_str(&said).expect("JSON");
    json.as_array().expect("an array").clone()
}

#[test]
fn a_choice_is_used_without_asking_until_it_is_revoked() {
    let stage = Stage::new();
    stage.configure("remember", "days", "30");
    let id = remember(
        &stage,
        "alice@sender.test",
        Scope::Recipient,
        "bob@plain.test",
    );
    // bob as agreed; carol at the same server is another; eve fails otherwise than agreed.
    let to = ["bob@plain.test", "carol@plain.test", "eve@refuse.test"];
    let (queue_id, _) = stage.stuck(&to, "agreed");
    assert!(!came_over_tls(&stage.arrival(to[0])));
    stage.becomes(&queue_id, to[0], "released");
    let states = stage.states(&queue_id);
    assert_eq!(
        (states[to[1]].as_str(), states[to[2]].as_str()),
        ("open", "open")
    );
    stage.logged(&format!(
        "{queue_id}: to=<bob@plain.test>, decision recorded: send, by consent {id}"
    ));
    let case = says(&stage, 0, &["case", &queue_id]);
    assert!(
        case.contains("decided <bob@plain.test>: send by consent"),
        "{case}"
    );

    let shown = says(&stage, 0, &["consents", "list"]);
    let short = &id.to_string()[..6];
    assert!(
        shown.starts_with(&format!(
            "{short}  from=<alice@sender.test>  recipient bob@plain.test, for not-offered"
        )) && shown.contains("from 192.0.2.7, until 20")
            && shown.contains("uses: 1, last 20"),
        "{shown}"
    );
    let said = says(&stage, 0, &["consents", "revoke", &short.to_uppercase()]);
    assert!(
        said.contains(&format!("{id}: revoked: from=<alice@sender.test>")),
        "{said}"
    );
    assert_eq!(
        says(&stage, 0, &["consents", "list"]),
        "No remembered choices.\n"
    );
    assert!(says(&stage, 0, &["consents", "revoke", short]).contains("had ended before"));
    let all = says(&stage, 0, &["consents", "list", "--all"]);
    assert!(
        all.contains("ended 20") && all.contains("revoked by "),
        "{all}"
    );

    let (next, _) = stage.stuck(&["bob@plain.test"], "revoked");
    assert_eq!(stage.states(&next)["bob@plain.test"], "open");
    assert_eq!(stage.attempts("bob@plain.test"), 1);
    assert_eq!(list(&stage, &["--all"])[0]["uses"], 1);
}

#[test]
fn a_choice_is_not_used_for_mandatory_domains_certificates_or_when_switched_off() {
    let stage = Stage::wanting_certificates(|options| options);
    stage.configure("remember", "days", "30");
    stage.configure("offer", "failures", "[\"not-offered\", \"certificate\"]");
    remember(&stage, "alice@sender.test", Scope::Domain, "cert.test");
    remember(&stage, "alice@sender.test", Scope::Domain, "plain.test");
    let (certificate, _) = stage.stuck(&["bob@cert.test"], "certificate");
    assert_eq!(stage.states(&certificate)["bob@cert.test"], "open");
    stage.configure("remember", "days", "0");
    let (off, _) = stage.stuck(&["bob@plain.test"], "off");
    assert_eq!(stage.states(&off)["bob@plain.test"], "open");
    stage.configure("remember", "days", "30");
    says(&stage, 0, &["mandatory", "add", "plain.test"]);
    let mandatory = stage.send(&["bob@plain.test"], "mandatory");
    stage.logged(&format!(
        "{mandatory}: to=<bob@plain.test>, decision recorded: delete, by mandatory"
    ));
    stage.becomes(&mandatory, "bob@plain.test", "deleted");
    assert_eq!(
        stage.attempts("bob@plain.test") + stage.attempts("bob@cert.test"),
        0
    );
    assert!(list(&stage, &[]).iter().all(|one| one["uses"] == 0));
}

#[test]
fn ids_may_be_shortened_but_not_guessed() {
    let stage = Stage::with(|options| options.httpd(false));
    let alice = remember(&stage, "alice@sender.test", Scope::Domain, "plain.test");
    let bob = remember(&stage, "bob@sender.test", Scope::Domain, "plain.test");
    let of_bob = list(&stage, &["--sender", "bob@sender.test"]);
    assert_eq!(of_bob.len(), 1);
    assert_eq!(of_bob[0]["id"], bob.to_string());
    for wrong in ["", "12345", "not-hexadecimal", "00000000000000000000"] {
        let code = if wrong.len() > 16 { 66 } else { 64 };
        says(&stage, code, &["consents", "revoke", wrong]);
    }
    // All or none.
    let said = says(
        &stage,
        66,
        &["consents", "revoke", &alice.to_string(), "ffffffffffffffff"],
    );
    assert!(said.contains("no such remembered choice"), "{said}");
    assert_eq!(list(&stage, &[]).len(), 2);
    // Two whose first digits are the same: what is listed tells them apart.
    let database =
        rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a database");
    for (id, new) in [
        (alice, 0x1234_5678_9abc_0000_i64),
        (bob, 0x1234_5678_9abd_0000),
    ] {
        database
            .execute("UPDATE consents SET id = ?2 WHERE id = ?1", [id.0, new])
            .expect("a change");
    }
    let said = says(&stage, 64, &["consents", "revoke", "123456789ab"]);
    assert!(said.contains("give more digits"), "{said}");
    let shown = says(&stage, 0, &["consents", "list"]);
    assert!(
        shown.contains("123456789abc  ") && shown.contains("123456789abd  "),
        "{shown}"
    );
    says(
        &stage,
        0,
        &["consents", "revoke", "123456789abd", "123456789abc"],
    );
    assert!(list(&stage, &[]).is_empty());
}
