//! The senders at their pages: single recipients and whole messages, twice, at the same moment, and against themselves.

use std::collections::BTreeMap;
use std::sync::{Barrier, OnceLock};
use std::thread;

use fastrand::Rng;
use posttls::case::{Action, CaseId, Outcome};
use rusqlite::Connection;

use crate::common::{Answer, Stage, try_request};
use crate::ledger::{Click, Ledger, tag_of};
use crate::plan::{self, Habit};

/// A recipient that its sender may decide about.
#[derive(Clone)]
struct Open {
    case: CaseId,
    number: i64,
    address: String,
}

/// The forms of one visit: all at once, or one after the other.
struct Visit {
    url: String,
    forms: Vec<(String, Click)>,
    at_once: bool,
}

/// One sender until all is over.
pub fn decide(
    stage: &Stage,
    ledger: &Ledger,
    seed: u64,
    sender: &'static str,
    habit: Habit,
) -> Result<(), String> {
    let mut rng = plan::rng(seed, sender);
    let store = Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    store
        .busy_timeout(crate::common::PATIENCE)
        .expect("a timeout");
    let (least, most) = match habit {
        Habit::Bulk => (400, 2500),
        Habit::Trusts => (300, 2500),
        _ => (20, 350),
    };
    while ledger.nap(&mut rng, least, most) {
        let open = open_of(&store, sender);
        if open.is_empty() {
            continue;
        }
        let on_sender_page = match habit {
            Habit::Bulk => true,
            Habit::Both => rng.usize(..4) == 0,
            _ => false,
        };
        let visit = if on_sender_page {
            sender_page(stage, &mut rng, sender, &open)
        } else {
            case_page(stage, &mut rng, sender, &open)
        };
        if let Some(visit) = visit {
            go(ledger, visit)?;
        }
    }
    Ok(())
}

fn open_of(store: &Connection, sender: &str) -> Vec<Open> {
    let mut statement = store
        .prepare_cached(
            "SELECT c.id, r.number, r.address FROM cases c JOIN recipients r ON r.case_id = c.id
             WHERE c.sender = ?1 AND c.state = 'open' AND r.state IN ('open', 'kept')",
        )
        .expect("a query");
    let rows = statement.query_map([sender], |row| {
        Ok(Open {
            case: row.get(0)?,
            number: row.get(1)?,
            address: row.get(2)?,
        })
    });
    rows.expect("recipients")
        .collect::<rusqlite::Result<_>>()
        .expect("recipients")
}

fn any_action(rng: &mut Rng) -> Action {
    match rng.usize(..20) {
        0..11 => Action::Send,
        11..16 => Action::Delete,
        _ => Action::Keep,
    }
}

/// Another one than that.
fn against(action: Action) -> Action {
    match action {
        Action::Send => Action::Delete,
        Action::Delete | Action::Keep => Action::Send,
    }
}

fn case_page(stage: &Stage, rng: &mut Rng, sender: &'static str, open: &[Open]) -> Option<Visit> {
    let case = open[rng.usize(..open.len())].case;
    // Some messages are never decided about.
    if case.0.rem_euclid(8) == 0 {
        return None;
    }
    let own: Vec<&Open> = open.iter().filter(|one| one.case == case).collect();
    let click = |asked: Vec<(String, Action)>| Click {
        sender,
        asked,
        whole: None,
        bulk: None,
        answered: None,
    };
    let each = |choices: &[(&Open, Action)]| {
        let form: Vec<String> = choices
            .iter()
            .map(|(one, action)| format!("choice-{}={action}", one.number))
            .collect();
        let asked = choices
            .iter()
            .map(|(one, action)| (one.address.clone(), *action));
        (form.join("&"), click(asked.collect()))
    };
    let mut some: Vec<(&Open, Action)> = own
        .iter()
        .filter(|_| rng.usize(..10) < 7)
        .map(|one| (*one, Action::Keep))
        .collect();
    if some.is_empty() {
        some.push((own[0], Action::Keep));
    }
    for (_, action) in &mut some {
        *action = any_action(rng);
    }
    let (forms, at_once) = match rng.usize(..20) {
        0..7 => (vec![each(&some)], false),
        7..10 => {
            let action = any_action(rng);
            // Whoever has joined by then is meant, too.
            let mut click = click(Vec::new());
            click.whole = Some((tag_of(&own[0].address).to_owned(), action));
            (vec![(format!("action={action}"), click)], false)
        }
        10..12 => {
            let action = any_action(rng);
            let names: Vec<String> = some
                .iter()
                .map(|(one, _)| format!("&recipient={}", one.address.replace('@', "%40")))
                .collect();
            let asked = some.iter().map(|(one, _)| (one.address.clone(), action));
            let form = format!("action={action}{}", names.concat());
            (vec![(form, click(asked.collect()))], false)
        }
        12..14 => (vec![each(&some), each(&some)], false),
        14..17 => (vec![each(&some), each(&some), each(&some)], true),
        _ => {
            let other: Vec<(&Open, Action)> = some
                .iter()
                .map(|(one, action)| (*one, against(*action)))
                .collect();
            (vec![each(&some), each(&other)], true)
        }
    };
    Some(Visit {
        url: stage.page('c', &stage.token(case, 3600)),
        forms,
        at_once,
    })
}

fn sender_page(stage: &Stage, rng: &mut Rng, sender: &'static str, open: &[Open]) -> Option<Visit> {
    let url = stage.sender_link(sender);
    let page = try_request("GET", &url, "").ok()?;
    if rng.usize(..3) == 0 {
        // What the page shows is at most so much; another recipient may still be named.
        let mut form = Vec::new();
        let mut asked = Vec::new();
        for one in open.iter().take(60) {
            if rng.usize(..3) == 0 {
                continue;
            }
            let action = any_action(rng);
            form.push(format!("choice-{}-{}={action}", one.case, one.number));
            asked.push((one.address.clone(), action));
        }
        let click = Click {
            sender,
            asked,
            whole: None,
            bulk: None,
            answered: None,
        };
        return (!form.is_empty()).then(|| Visit {
            url,
            forms: vec![(form.join("&"), click)],
            at_once: false,
        });
    }
    let (_, rest) = page.body.split_once("name=\"seen\" value=\"")?;
    let seen = rest.split('"').next()?.to_owned();
    let domain = match rng.usize(..4) {
        0 => None,
        _ => {
            let one = &open[rng.usize(..open.len())];
            one.address.rsplit('@').next().map(str::to_owned)
        }
    };
    let bulk = |action: Action| {
        let of = domain
            .as_ref()
            .map_or_else(String::new, |name| format!("&domain={name}"));
        let click = Click {
            sender,
            asked: Vec::new(),
            whole: None,
            bulk: Some((action, domain.clone())),
            answered: None,
        };
        (format!("action={action}&seen={seen}{of}"), click)
    };
    let action = any_action(rng);
    let (forms, at_once) = match rng.usize(..6) {
        0 => (vec![bulk(action), bulk(action)], true),
        1 => (vec![bulk(action), bulk(against(action))], true),
        _ => (vec![bulk(action)], false),
    };
    Some(Visit {
        url,
        forms,
        at_once,
    })
}

fn go(ledger: &Ledger, visit: Visit) -> Result<(), String> {
    let url = visit.url.as_str();
    let send = |(form, mut click): (String, Click)| {
        let answer = try_request("POST", url, &form);
        let refused = answer
            .as_ref()
            .ok()
            .filter(|answer| (400..500).contains(&answer.status))
            .map(|answer| {
                format!(
                    "{form} was answered with {}\n{}",
                    answer.status, answer.body
                )
            });
        click.answered = answer
            .ok()
            .filter(|answer| answer.status == 200 && answer.body.contains("</html>"))
            .map(|answer| outcomes(&answer));
        ledger.clicked(click);
        refused.map_or(Ok(()), Err)
    };
    if !visit.at_once {
        return visit.forms.into_iter().try_for_each(send);
    }
    let start = Barrier::new(visit.forms.len());
    thread::scope(|scope| {
        let clicks: Vec<_> = visit
            .forms
            .into_iter()
            .map(|form| {
                scope.spawn(|| {
                    start.wait();
                    send(form)
                })
            })
            .collect();
        clicks
            .into_iter()
            .try_for_each(|click| click.join().expect("a click does not panic"))
    })
}

/// The sentences in which pages say what became of a recipient.
fn sentences() -> &'static BTreeMap<String, Outcome> {
    static SENTENCES: OnceLock<BTreeMap<String, Outcome>> = OnceLock::new();
    SENTENCES.get_or_init(|| {
        let texts: toml::Table = include_str!("../../src/texts/en.toml")
            .parse()
            .expect("the English texts");
        let known = texts["page"]["outcome"].as_table().expect("a table");
        let of = |(name, text): (&String, &toml::Value)| {
            let text = text.as_str().expect("a sentence").to_owned();
            (text, name.parse().expect("an outcome"))
        };
        // As recorded, with the news that a try has failed.
        let hindered = texts["page"]["hindered"].as_str().expect("a sentence");
        let hindered = (hindered.to_owned(), Outcome::Recorded);
        // With the reason for which it waits.
        let failures = texts["page"]["failure"].as_table().expect("a table");
        let undone = [Outcome::NotPossible, Outcome::Changed];
        let with_reason = undone.into_iter().flat_map(|outcome| {
            let said = known[outcome.as_str()].as_str().expect("a sentence");
            failures.values().map(move |why| {
                let why = why.as_str().expect("a sentence");
                (format!("{said} {why}"), outcome)
            })
        });
        let known = known.iter().map(of).chain([hindered]);
        known.chain(with_reason).collect()
    })
}

/// What an answer says, recipient by recipient.
fn outcomes(answer: &Answer) -> Vec<(String, Outcome)> {
    let mut found = Vec::new();
    for item in answer.body.split("<p class=\"address\"><bdi>").skip(1) {
        let Some((address, rest)) = item.split_once("</bdi>") else {
            continue;
        };
        let said = rest
            .split_once("</strong> ")
            .and_then(|(_, text)| text.split_once("</p>"));
        if let Some((text, _)) = said {
            let outcome = sentences().get(text.trim());
            let outcome = outcome.unwrap_or_else(|| panic!("{text:?} is no outcome that is known"));
            found.push((address.to_owned(), *outcome));
        }
    }
    found
}
