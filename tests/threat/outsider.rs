//! Somebody on the network, without a link; and programs that open links without being asked to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use posttls::case::store::{NewConsent, now_ms};
use posttls::case::{Failure, Scope};
use posttls::sandbox::Instance;

use crate::common::{Stage, request};

const ALICE: &str = "alice@sender.test";

#[test]
fn nothing_is_decided_or_told_without_the_link() {
    let stage = Stage::new();
    whoever_follows_links_decides_nothing(&stage);
    another_site_is_not_let_in(&stage);
    no_log_names_a_link(&stage);
}

/// Some scanners send the forms that they find, as they find them.
#[test]
fn a_form_that_is_sent_as_it_stands_decides_nothing() {
    let stage = Stage::new();
    stage.configure("remember", "days", "30");
    stage.restart();
    let queue_id = stage.stuck_from(ALICE, &["bob@plain.test", "carol@plain.test"], "scanned");
    let single = stage.stuck_from(ALICE, &["dan@plain.test"], "scanned, too");
    let consent = NewConsent {
        sender: ALICE.parse().expect("an address"),
        scope: Scope::Domain,
        target: "refuse.test".to_owned(),
        failures: vec![Failure::Refused],
        client: "192.0.2.7".to_owned(),
        expires_at: now_ms() + 86_400_000,
    };
    let consent = stage.store().add_consent(&consent).expect("a consent");
    // The store says that they were told after the mail is there.
    for case in [&queue_id, &single] {
        stage.wait("the end of its hook", || {
            stage.case(case)["notified_at"].is_i64().then_some(())
        });
    }
    let before = (stage.case(&queue_id), stage.case(&single));
    let mut pages = vec![stage.sender_link(ALICE), stage.consent_link(consent)];
    for case in [&queue_id, &single] {
        let link = stage.case_link(case);
        pages.extend(
            ["", "?choice=send", "?choice=delete", "?choice=keep"]
                .map(|query| format!("{link}{query}")),
        );
    }
    let mut sent = 0;
    for url in &pages {
        let page = stage.get(url);
        assert_eq!(page.status, 200, "{url}");
        let forms = untouched(&page.body);
        assert!(!forms.is_empty(), "{url}");
        for (path, form) in forms {
            let answer = stage.post(&format!("{}{path}", stage.sandbox.http()), &form);
            assert_eq!(answer.status, 400, "{path} {form}: {answer:?}");
            // The page again, with its forms, and what was missing.
            assert!(
                answer.body.contains("You have not chosen anything"),
                "{answer:?}"
            );
            assert_eq!(untouched(&answer.body).len(), untouched(&page.body).len());
            sent += 1;
        }
    }
    assert_eq!(sent, 15);
    assert_eq!((stage.case(&queue_id), stage.case(&single)), before);
    assert_eq!(stage.store().consents(false).expect("consents").len(), 1);
    for (case, to) in [(&queue_id, 2), (&single, 1)] {
        stage.in_queue(case, "deferred");
        assert_eq!(stage.pending(case).len(), to);
    }
}

/// The forms of a page, and what a browser sends of each if nobody touches it: hidden fields, what is checked, and the
/// first option of a list.
fn untouched(page: &str) -> Vec<(String, String)> {
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!("{name}=\""))?;
        let value = rest.split('"').next()?;
        Some(value.replace("&#x2f;", "/").replace("&amp;", "&"))
    };
    let mut forms = Vec::new();
    for form in page.split("<form ").skip(1) {
        let form = form.split("</form>").next().expect("its end");
        let mut sent = url::form_urlencoded::Serializer::new(String::new());
        for tag in form.split('<').skip(1) {
            let tag = tag.split('>').next().expect("its end");
            let goes = tag.starts_with("input")
                && (tag.contains("type=\"hidden\"") || tag.contains(" checked"));
            if let Some(name) = attribute(tag, "name").filter(|_| goes) {
                sent.append_pair(&name, &attribute(tag, "value").unwrap_or_default());
            }
        }
        for list in form.split("<select ").skip(1) {
            let first = list.split("<option ").nth(1).expect("an option");
            let name = attribute(list, "name").expect("a name");
            sent.append_pair(&name, &attribute(first, "value").unwrap_or_default());
        }
        forms.push((attribute(form, "action").expect("a path"), sent.finish()));
    }
    forms
}

/// What looks at mail before, or instead of, its reader: mail scanners, previews, prefetching browsers.
fn whoever_follows_links_decides_nothing(stage: &Stage) {
    let queue_id = stage.send(&["bob@plain.test", "carol@plain.test"], "scanned");
    let mail = stage.notification(&queue_id);
    let before = stage.case(&queue_id);
    let mut seen: Vec<String> = urls(&mail, stage.sandbox.http());
    seen.push(stage.sender_link("alice@sender.test"));
    assert!(
        seen.iter().any(|url| url.ends_with("?choice=send")),
        "{seen:?}"
    );
    let mut next = 0;
    while next < seen.len() {
        let url = seen[next].clone();
        next += 1;
        assert_eq!(request("HEAD", &url, "").status, 200, "{url}");
        let page = stage.get(&url);
        assert_eq!(page.status, 200, "{url}");
        // A form that is sent by GET: some do.
        let with_form = format!(
            "{url}{}action=delete",
            if url.contains('?') { '&' } else { '?' }
        );
        stage.get(&with_form);
        for found in targets(&page.body, stage.sandbox.http()) {
            if !seen.contains(&found) && seen.len() < 40 {
                seen.push(found);
            }
        }
    }
    assert!(seen.len() > 4, "{seen:?}");
    assert_eq!(stage.case(&queue_id), before);
}

/// Every URL of ours in a mail, whatever its encoding left of it.
fn urls(mail: &str, base: &str) -> Vec<String> {
    let mail = mailparse::parse_mail(mail.as_bytes()).expect("a mail");
    let plain = mail.subparts[0].get_body().expect("plain text");
    let words = plain
        .split_whitespace()
        .filter(|word| word.starts_with(base));
    words.map(str::to_owned).collect()
}

/// Whatever a page names as `href` or `action`, as URLs of ours.
fn targets(page: &str, base: &str) -> Vec<String> {
    let names = ["href=\"", "action=\""].into_iter();
    let found = names.flat_map(|name| page.split(name).skip(1));
    found
        .filter_map(|rest| rest.split('"').next())
        .filter(|target| target.starts_with('/'))
        .map(|target| format!("{base}{}", target.replace("&amp;", "&")))
        .collect()
}

/// The link is the only authority, so another page that does not know it has nothing to send; and it is told nothing.
fn another_site_is_not_let_in(stage: &Stage) {
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "cross site");
    for method in ["OPTIONS", "GET", "HEAD", "PUT", "DELETE", "PATCH"] {
        let answer = request(method, &link, "");
        let head = answer.head.to_ascii_lowercase();
        assert!(!head.contains("access-control-"), "{method}: {head}");
        assert!(!head.contains("set-cookie"), "{method}: {head}");
        for header in [
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
            "cross-origin-opener-policy: same-origin",
            "frame-ancestors 'none'",
        ] {
            assert!(head.contains(header), "{method}: {header} in {head}");
        }
    }
    // Without the link there is no address to send a form to.
    for path in ["/", "/c", "/c/", "/c/1", "/s/1", "/r/1", "/healthz"] {
        let answer = stage.post(&format!("{}{path}", stage.sandbox.http()), "action=delete");
        assert!([404, 405].contains(&answer.status), "{path}: {answer:?}");
    }
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
}

fn no_log_names_a_link(stage: &Stage) {
    let (queue_id, link) = stage.stuck(&["dora@plain.test"], "logged");
    let sender = stage.sender_link("alice@sender.test");
    let token = |url: &str| url.rsplit('/').next().expect("a token").to_owned();
    let mut forged = token(&link).into_bytes();
    let last = forged.len() - 2;
    forged[last] = if forged[last] == b'x' { b'y' } else { b'x' };
    let forged = String::from_utf8(forged).expect("text");
    let expired = stage.token(stage.known(&queue_id).id, -5);
    for url in [
        &link,
        &sender,
        &stage.page('c', &forged),
        &stage.page('c', &expired),
    ] {
        stage.get(url);
        stage.post(url, "action=nonsense");
    }
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("dora@plain.test");
    stage.logged("refused a link");
    let logs = [
        stage.log(),
        stage.sandbox.log(Instance::Encrypt),
        stage.sandbox.log(Instance::May),
        stage.sandbox.log(Instance::Mx),
        stage.said(&["case", &queue_id]),
        stage.said(&["log"]),
    ];
    for token in [token(&link), token(&sender), forged, expired] {
        // Its last third is signature.
        let secret = &token[token.len() * 2 / 3..];
        for log in &logs {
            assert!(!log.contains(secret), "{log}");
        }
    }
}

/// The example logs the beginning of a path; here is what that is of a token.
#[test]
fn the_shipped_nginx_logs_no_part_of_a_signature() {
    let conf = include_str!("../../postfix-conf/nginx.conf.example");
    let start = conf
        .split("/[csr]/.{0,")
        .nth(1)
        .expect("the expression of the map");
    let logged: usize = start
        .split('}')
        .next()
        .expect("}")
        .parse()
        .expect("a number");
    let octets = URL_SAFE_NO_PAD
        .decode("A".repeat(logged / 4 * 4))
        .expect("base64")
        .len()
        + 3;
    assert!(octets < 1 + 2 + 8 + 8, "{octets} octets of a token");
    let format = conf
        .split("log_format")
        .nth(1)
        .expect("a format")
        .split(';')
        .next();
    let format = format.expect("its end");
    for name in [
        "$request ",
        "$request'",
        "$request_uri",
        "$uri",
        "$http_referer",
        "$args",
    ] {
        assert!(!format.contains(name), "{format}");
    }
    for line in conf
        .lines()
        .filter(|line| line.trim().starts_with("access_log"))
    {
        assert!(line.trim_end().ends_with(" posttls;"), "{line}");
    }
    assert!(conf.contains("posttls-error.log crit;"));
}
