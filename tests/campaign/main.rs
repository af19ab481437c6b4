//! The crash campaign: under a load of mixed mail, and of senders who decide at random, everything is killed that can be,
//! again and again; then everything is compared with what was decided.
//!
//! Short as a part of `tests/run.sh`; long with `tests/campaign/crash`, which says how in the environment. Everything that
//! is drawn comes from the seed of a round; what coincides with what is up to the machine, so the same seed repeats the
//! same load and the same intentions, not the same microseconds.
#![cfg(feature = "failpoints")]

#[path = "../common/mod.rs"]
mod common;
mod court_tests;
mod deciders;
mod decisions;
mod evidence;
mod killers;
mod ledger;
mod load;
mod news;
mod plan;
mod process;
mod rest;
mod round;
mod verdict;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use round::Size;

/// The seed of the short campaign.
const SEED: u64 = 20_261_123;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn add(sum: &mut BTreeMap<String, usize>, more: impl IntoIterator<Item = (String, usize)>) {
    for (what, count) in more {
        *sum.entry(what).or_default() += count;
    }
}

fn print(title: &str, counts: &BTreeMap<String, usize>) {
    println!("{title}:");
    for (what, count) in counts {
        println!("  {count:7}  {what}");
    }
}

#[test]
fn whatever_is_killed_everybody_gets_what_was_decided_once() {
    let wanted = setting("CAMPAIGN_DECISIONS");
    let minutes = setting("CAMPAIGN_MINUTES");
    let seed = setting("CAMPAIGN_SEED").unwrap_or(SEED);
    let size = if wanted.is_some() {
        Size::LONG
    } else {
        Size::SHORT
    };
    let wanted = usize::try_from(wanted.unwrap_or(1)).expect("a number of decisions");
    let begun = Instant::now();
    let limit = minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let (mut rounds, mut failed, mut decisions) = (0, Vec::new(), 0);
    let mut messages = 0;
    let (mut ends, mut decided, mut kills) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut excused = 0;
    while decisions < wanted && limit.is_none_or(|limit| begun.elapsed() < limit) {
        // The first round has the seed itself, so that a round is replayed by its own.
        let seed = seed.wrapping_add(rounds);
        rounds += 1;
        let report = round::run(seed, &size);
        decisions += report.decisions.values().sum::<usize>();
        messages += report.messages;
        excused += report.verdict.excused;
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        println!(
            "round {rounds}, seed {seed}: {} messages, {decisions} of {wanted} decisions, {:.0} a minute, {} kills: {}",
            report.messages,
            decisions as f64 / minutes,
            report.kills.values().sum::<usize>(),
            if report.verdict.violations.is_empty() {
                "good"
            } else {
                "FAILED"
            },
        );
        let known = report
            .verdict
            .ends
            .iter()
            .map(|(end, count)| ((*end).to_owned(), *count));
        add(&mut ends, known);
        add(&mut decided, report.decisions);
        add(&mut kills, report.kills);
        for violation in &report.verdict.violations {
            println!("  {violation}");
        }
        if let Some(kept) = report.kept {
            println!("  kept for study: {}", kept.display());
            failed.push(seed);
        }
    }
    let recipients: usize = ends.values().sum();
    println!(
        "\n{rounds} rounds in {:.1} minutes: {messages} messages to {recipients} recipients, {decisions} decisions",
        begun.elapsed().as_secs_f64() / 60.0
    );
    print("decisions", &decided);
    print("recipients in the end", &ends);
    print("kills", &kills);
    let passed_over: Vec<&str> = killers::points()
        .into_iter()
        .filter(|name| !kills.contains_key(&format!("mover at {name}")))
        .collect();
    println!("named points of the move at which it did not die: {passed_over:?}");
    println!(
        "copies doubled by Postfix alone, smtp(8) having been killed before its mark: {excused}"
    );
    assert!(
        failed.is_empty(),
        "rounds with violations, by seed: {failed:?}"
    );
    assert!(
        decisions > 0,
        "a campaign without a decision proves nothing"
    );
    println!("verdict: nothing lost, nothing doubled, nothing sent that nobody decided");
}
