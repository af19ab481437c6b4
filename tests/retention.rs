//! Old cases lose what names a person, while the daemon runs: what page and commands show then.

mod common;

use common::Stage;
use posttls::case::RecipientState;

#[test]
fn an_old_case_is_forgotten_and_its_links_with_it() {
    let stage = Stage::new();
    let (old, page) = stage.stuck(&["bob@plain.test"], "forgotten");
    assert_eq!(stage.post(&page, "action=delete").status, 200);
    stage.becomes(&old, "bob@plain.test", "deleted");
    let (young, young_page) = stage.stuck(&["bob@plain.test"], "remembered");
    assert_eq!(stage.post(&young_page, "action=delete").status, 200);
    stage.becomes(&young, "bob@plain.test", "deleted");
    stage.sandbox.stop_httpd();
    let database =
        rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a database");
    let days = 91 * 86_400;
    let changed = database.execute(
        "UPDATE cases SET closed_at = closed_at - ?2 * 1000, retry_until = retry_until - ?2 WHERE queue_id = ?1",
        rusqlite::params![old, days],
    );
    assert_eq!(changed.expect("a change"), 1);
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    stage.logged("retention: older than 90 days: cases=1 ");

    assert_eq!(stage.get(&page).status, 410);
    assert_eq!(stage.post(&page, "action=send").status, 410);
    assert_eq!(stage.get(&young_page).status, 200);
    let said = stage.posttls(&["case", &old]);
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(
        said.contains("from=<removed>  closed (deleted), notified 20")
            && said.contains(", personal data removed 20")
            && said.contains("to=<redacted-1>  not-offered, deleted"),
        "{said}"
    );
    for personal in ["alice", "bob", "forgotten", "127.0.0.1"] {
        assert!(!said.contains(personal), "{personal} in {said}");
    }
    let all = stage.posttls(&["cases", "--all"]);
    let all = String::from_utf8_lossy(&all.stdout);
    assert!(
        all.contains(&old) && all.contains("from=<alice@sender.test>"),
        "{all}"
    );
    // The state is counted on, and so is the domain.
    let store = stage.store();
    let cases = store
        .cases_of(&old.parse().expect("a queue ID"))
        .expect("cases");
    let recipients = store.recipients(cases[0].id).expect("recipients");
    assert_eq!(recipients[0].state, RecipientState::Deleted);
    let domain: String = database
        .query_row(
            "SELECT domain FROM recipients WHERE case_id = ?1",
            [cases[0].id.0],
            |row| row.get(0),
        )
        .expect("a domain");
    assert_eq!(domain, "plain.test");
    assert_eq!(stage.posttls(&["release", &old]).status.code(), Some(1));
}

#[test]
fn nothing_is_forgotten_where_that_is_switched_off() {
    let stage = Stage::with(|options| options.httpd_env("POSTTLS_RETENTION_DAYS", "0"));
    let (queue_id, page) = stage.stuck(&["bob@plain.test"], "kept");
    assert_eq!(stage.post(&page, "action=delete").status, 200);
    stage.becomes(&queue_id, "bob@plain.test", "deleted");
    stage.sandbox.stop_httpd();
    let database =
        rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a database");
    database
        .execute("UPDATE cases SET closed_at = 1, retry_until = 1", [])
        .expect("a change");
    let never = [("POSTTLS_RETENTION_DAYS".to_owned(), "0".to_owned())];
    stage.sandbox.start_httpd(&never).expect("a daemon");
    assert_eq!(stage.get(&page).status, 200);
    assert_eq!(stage.case(&queue_id)["sender"], "alice@sender.test");
    assert!(!stage.log().contains("retention:"), "{}", stage.log());
}
