//! What PostTLS costs, on real Postfix: every benchmark, or those that are named. `tests/bench/run` builds and calls it.
//!
//! What is compared is measured in the same run, round by round in turn, so that a machine that gets slower meanwhile
//! does so for all. Figures go to standard output as the Markdown table that the README shows; progress to standard error.

#[path = "../common/mod.rs"]
mod common;

mod backlog;
mod click;
mod fill;
mod growth;
mod hooks;
mod kept;
mod log;
mod measure;
mod memory;
mod notices;
mod older;
mod pages;
mod plot;
mod stage;
mod told;

use measure::Table;

/// How much is tried.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// To see that it works, in a few minutes.
    quick: bool,
}

impl Effort {
    /// `full`, or `quick` in a quick run.
    fn pick<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

type Benchmark = fn(Effort, &mut Table);

const ALL: &[(&str, Benchmark)] = &[
    ("notices", notices::run),
    ("told", told::run),
    ("click", click::run),
    ("growth", growth::run),
    ("memory", memory::run),
    ("pages", pages::run),
];

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn main() {
    // `cargo bench` adds --bench.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let effort = Effort {
        quick: words.iter().any(|word| word == "--quick"),
    };
    let names: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| *word != "--quick")
        .collect();
    let known = |name: &&str| ALL.iter().any(|(known, _)| known == name);
    if let Some(name) = names.iter().find(|name| !known(name)) {
        let all: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("no benchmark {name:?}; there are: {}", all.join(", "));
        std::process::exit(64);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let before = load();
    let mut table = Table::default();
    for (name, benchmark) in ALL {
        if names.is_empty() || names.contains(name) {
            eprintln!("{name} ...");
            benchmark(effort, &mut table);
        }
    }
    println!("{table}");
    println!(
        "{cores} cores; load (1, 5, 15 minutes) before: {before}; after: {}",
        load()
    );
    if effort.quick {
        println!("A quick run: too few rounds to go by.");
    }
}
