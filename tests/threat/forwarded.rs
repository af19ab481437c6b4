//! Somebody to whom a sender has forwarded the notification: the case is in that person's hands, and nothing else is.

use crate::common::Stage;

#[test]
fn a_link_opens_its_own_case_and_leads_to_no_other_page() {
    let stage = Stage::new();
    let (first, link) = stage.stuck(&["bob@plain.test"], "first");
    let second = stage.stuck_from("alice@sender.test", &["carol@plain.test"], "second");
    let token = link.rsplit('/').next().expect("a token");
    // That much is so, and the README says it: who has the link decides.
    for page in [stage.get(&link), stage.post(&link, "action=keep")] {
        assert_eq!(page.status, 200);
        assert!(page.body.contains("bob@plain.test"));
        for other in ["/s/", "/r/", "carol@plain.test", &second] {
            assert!(!page.body.contains(other), "{other} in {}", page.body);
        }
        let links = page.body.split("/c/").skip(1);
        assert!(
            links.into_iter().all(|rest| rest.starts_with(token)),
            "{}",
            page.body
        );
    }
    for kind in ['s', 'r'] {
        let url = stage.page(kind, token);
        assert_eq!(stage.get(&url).status, 404);
        assert!(stage.post(&url, "action=delete").status >= 400);
    }
    assert_eq!(stage.states(&first)["bob@plain.test"], "kept");
    assert_eq!(stage.states(&second)["carol@plain.test"], "open");
}
