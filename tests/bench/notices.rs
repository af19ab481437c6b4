//! Notices a second through real Postfix with eight pipe processes: the same notices for four programs in turn, from
//! their release to the end of the last program.

use std::time::{Duration, Instant};

use crate::Effort;
use crate::backlog::Backlog;
use crate::common::Stage;
use crate::hooks::{Hook, Hooks};
use crate::log::Watch;
use crate::measure::{Figures, Table};
use crate::stage::{Sink, with_sink};

pub fn run(effort: Effort, table: &mut Table) {
    let (rounds, count) = (effort.pick(9, 2), effort.pick(500, 100));
    let sink = Sink::start();
    let stage = with_sink(&sink, |options| options);
    // The sweep would close the cases, as there are no such messages.
    stage.configure("sweep", "seconds", "3600");
    stage.configure("sweep", "census_minutes", "0");
    stage.restart();
    let mut backlog = Backlog::gather(&stage, count);
    let hooks = Hooks::new(&stage, sink.port);
    let watch = Watch::start(&stage, Duration::from_millis(2));
    let mut rates = Hook::ALL.map(|hook| (hook, Vec::new()));
    for round in 0..=rounds {
        for turn in 0..rates.len() {
            // Each is first and last as often as the others.
            let (hook, rates) = &mut rates[(turn + round) % Hook::ALL.len()];
            hooks.switch(&stage, *hook, sink.port);
            let time = one_round(&stage, &mut backlog, &watch, count);
            eprintln!("  {hook:?}: {count} in {:.2} s", time.as_secs_f64());
            // The first round only warms up.
            if round > 0 {
                rates.push(count as f64 / time.as_secs_f64());
            }
        }
    }
    let floor = Figures::new(rates[1].1.clone()).median();
    for (hook, rates) in &rates {
        let figures = Figures::new(rates.clone());
        let beside = match hook {
            Hook::PostTls => format!(
                "{:.2} of the SMTP floor's rate; goal: 0.9",
                figures.median() / floor
            ),
            _ => format!("{count} in {:.1} s", count as f64 / figures.median()),
        };
        table.row(hook.what(), "/s", &figures, &beside);
    }
}

fn one_round(stage: &Stage, backlog: &mut Backlog, watch: &Watch, count: usize) -> Duration {
    backlog.prepare();
    watch.forget();
    let start = Instant::now();
    backlog.release(stage);
    watch.wait("the end of the last hook", |lines| {
        let mut ends = lines.iter().filter(|(_, log, line)| {
            *log == "encrypt" && line.contains("relay=posttls") && line.contains("status=")
        });
        let failed = ends
            .clone()
            .find(|(.., line)| !line.contains("status=sent"));
        assert!(failed.is_none(), "{failed:?}");
        ends.nth(count - 1).map(|(at, ..)| *at)
    }) - start
}
