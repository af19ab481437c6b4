//! What one notice, one release and one sweep cost while few or very many messages wait, in queue and store; and what a
//! minute costs when nothing happens, beside the older way. All sizes stand side by side and take turns.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use posttls::config::Config;
use posttls::mover::{Engine, Sweep};
use posttls::postfix::Instance;
use posttls::sandbox;

use crate::common::Stage;
use crate::fill::fill;
use crate::kept::Kept;
use crate::log::Watch;
use crate::measure::{Figures, Table, ms};
use crate::stage::{Sink, with_sink};
use crate::{Effort, memory, older, plot};

/// The older way takes minutes for more.
const OLDER_MOST: u64 = 10_000;
/// Messages to which something happens between two sweeps.
const TOUCHED: usize = 10;
/// Of the processor time of a process.
const TICKS_A_SECOND: f64 = 100.0;

struct Sized {
    pending: u64,
    stage: Stage,
    watch: Watch,
    notices: Vec<f64>,
    releases: Vec<f64>,
    /// While nothing happens, and with some messages touched since the last one.
    sweeps: [Vec<f64>; 2],
}

pub fn run(effort: Effort, table: &mut Table) {
    let sizes: &[u64] = effort.pick(&[100, 1_000, 10_000, 100_000], &[100, 1_000]);
    let rounds = effort.pick(40, 5);
    let sink = Sink::start();
    let mut all: Vec<Sized> = sizes.iter().map(|size| filled(&sink, *size)).collect();
    let mut kept = Kept::new(1);
    sweep_all(&mut all, effort.pick(40, 5));
    eprintln!("  swept");
    for one in &all {
        one.stage.restart();
    }
    let minutes = minutes(&all, effort);
    for round in 0..=rounds {
        for turn in 0..all.len() {
            let place = (turn + round) % all.len();
            let notice = notice(&all[place].stage, &mut kept);
            let release = release(&all[place], round);
            // The first round only warms up.
            if round > 0 {
                all[place].notices.push(notice);
                all[place].releases.push(release);
            }
        }
    }
    report(table, &all);
    let mut posttls = plot::Curve::new();
    let mut by_mailq = plot::Curve::new();
    for (one, seconds) in all.iter().zip(minutes) {
        posttls.push((one.pending as f64, seconds));
        if one.pending <= OLDER_MOST {
            let (time, messages) = older::look(&one.stage);
            by_mailq.push((messages as f64, time.as_secs_f64()));
        }
    }
    let (last, seconds) = by_mailq[by_mailq.len() - 1];
    let each = seconds * 1000.0 / last;
    let most = posttls[posttls.len() - 1];
    let beside = format!("older way: {each:.1} ms a message and minute");
    let what = format!("Work a minute while nothing happens, {} pending", most.0);
    table.peak(&what, most.1, "s", &beside);
    let largest = &all[all.len() - 1];
    let mover = largest.stage.sandbox.httpd_pid().expect("the mover");
    let peak = memory::peak(mover).expect("the mover");
    let what = format!("Memory, mover with {} open cases", largest.pending);
    table.peak(&what, peak, "MB", "");
    let picture = plot::draw(&posttls, &by_mailq).expect("a picture");
    let path = std::env::var("PLOT").unwrap_or_else(|_| "target/growth.svg".to_owned());
    std::fs::write(&path, picture).expect("a place for the plot");
    eprintln!("  the plot is {path}");
}

fn filled(sink: &Sink, pending: u64) -> Sized {
    let stage = with_sink(sink, |options| options.httpd(false));
    let start = Instant::now();
    fill(&stage, pending);
    eprintln!(
        "  {pending} pending: filled in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    Sized {
        pending,
        watch: Watch::start(&stage, Duration::from_millis(1)),
        stage,
        notices: Vec::new(),
        releases: Vec::new(),
        sweeps: Default::default(),
    }
}

/// Sweeps as the mover does, in this process and in turn. The first ones, which read every file, only warm up.
fn sweep_all(all: &mut [Sized], rounds: usize) {
    let mut sweepers: Vec<Sweeper> = all.iter().map(|one| Sweeper::new(&one.stage)).collect();
    for sweeper in &mut sweepers {
        for _ in 0..2 {
            sweeper.run();
        }
    }
    for round in 0..rounds {
        for turn in 0..all.len() {
            let place = (turn + round) % all.len();
            let sweeper = &mut sweepers[place];
            all[place].sweeps[0].push(sweeper.run());
            sweeper.touch();
            all[place].sweeps[1].push(sweeper.run());
        }
    }
}

/// A sweep of one sandbox.
struct Sweeper {
    sweep: Sweep,
    config: Config,
    some: Vec<PathBuf>,
}

impl Sweeper {
    fn new(stage: &Stage) -> Self {
        let store = Arc::new(stage.store());
        let load = |which| Instance::load(&stage.sandbox.config_dir(which)).expect("an instance");
        let (encrypt, may) = (
            load(sandbox::Instance::Encrypt),
            load(sandbox::Instance::May),
        );
        let some = waiting(&encrypt);
        let engine = Arc::new(Engine::new(
            Arc::clone(&store),
            encrypt,
            may,
            &["127.0.0.1".to_owned()],
        ));
        Self {
            sweep: Sweep::new(store, engine),
            config: stage.config(),
            some,
        }
    }

    fn run(&mut self) -> f64 {
        let start = Instant::now();
        let result = self.sweep.run(&self.config);
        result.unwrap_or_else(|error| panic!("{error}"));
        ms(start.elapsed())
    }

    fn touch(&self) {
        let time = SystemTime::now() + Duration::from_secs(10 * 86_400);
        for path in &self.some {
            let file = fs::File::options().append(true).open(path);
            file.and_then(|file| file.set_modified(time))
                .expect("a file of the queue");
        }
    }
}

/// Some of the files in the deferred queue.
fn waiting(instance: &Instance) -> Vec<PathBuf> {
    let directories = fs::read_dir(instance.queue_directory.join("deferred")).expect("a queue");
    let files = directories.filter_map(|directory| fs::read_dir(directory.ok()?.path()).ok());
    let files = files.flatten().filter_map(|file| Some(file.ok()?.path()));
    files.take(TOUCHED).collect()
}

/// Processor time of each mover with its children, those that have ended, too, a minute, when it has settled.
fn minutes(all: &[Sized], effort: Effort) -> Vec<f64> {
    let used = |one: &Sized| {
        let mover = one.stage.sandbox.httpd_pid().expect("the mover");
        let children = memory::children(mover).into_iter();
        processor_time(mover) + children.map(processor_time).sum::<f64>()
    };
    // The first sweep, and the census after it, read every file.
    let settling = effort.pick(Duration::from_secs(180), Duration::from_secs(75));
    thread::sleep(settling);
    let before: Vec<f64> = all.iter().map(used).collect();
    let minutes = effort.pick(3, 1);
    thread::sleep(Duration::from_secs(60 * minutes));
    let spent = all.iter().map(used).zip(before);
    spent
        .map(|(after, before)| ((after - before) / minutes as f64).max(1.0 / TICKS_A_SECOND))
        .collect()
}

/// Seconds that a process and its children that have ended had of a processor.
fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // utime, stime, cutime, cstime, counted from the state, which comes after the name.
    let ticks = fields.split_whitespace().skip(11).take(4);
    let ticks: f64 = ticks.filter_map(|word| word.parse::<f64>().ok()).sum();
    ticks / TICKS_A_SECOND
}

fn notice(stage: &Stage, kept: &mut Kept) -> f64 {
    let start = Instant::now();
    let ended = kept.start(stage).wait().expect("the hook");
    assert!(ended.success(), "{ended}");
    ms(start.elapsed())
}

fn release(one: &Sized, round: usize) -> f64 {
    let stage = &one.stage;
    let (from, to) = (
        format!("c{round}@sender.test"),
        format!("c{round}@plain.test"),
    );
    let message = format!("From: {from}\r\nSubject: click {round}\r\n\r\nHello.\r\n");
    let sent = stage.sandbox.submit(&from, &[&to], message.as_bytes());
    let queue_id = sent.unwrap_or_else(|error| panic!("{error}"));
    let link = stage.case_link(&queue_id);
    let deferred = format!("deferred/{}/{queue_id}", &queue_id[..1]);
    let path = stage
        .sandbox
        .queue_dir(sandbox::Instance::Encrypt)
        .join(deferred);
    stage.wait("the message in the deferred queue", || {
        path.exists().then_some(())
    });
    one.watch.forget();
    let click = Instant::now();
    assert_eq!(stage.post(&link, "action=send").status, 200);
    let active = one
        .watch
        .when("may", &[&format!("from=<{from}>"), "queue active"]);
    ms(active - click)
}

fn report(table: &mut Table, all: &[Sized]) {
    for (what, figures) in [
        (
            "One notice (`posttls-pipe` by itself)",
            &(|one: &Sized| one.notices.clone()) as &dyn Fn(&Sized) -> Vec<f64>,
        ),
        ("One release (click to `queue active`)", &|one| {
            one.releases.clone()
        }),
        ("One sweep, nothing touched", &|one| one.sweeps[0].clone()),
        (&format!("One sweep, {TOUCHED} messages touched"), &|one| {
            one.sweeps[1].clone()
        }),
    ] {
        let first = Figures::new(figures(&all[0])).median();
        for one in all {
            let figures = Figures::new(figures(one));
            let ratio = figures.median() / first;
            let beside = format!("{ratio:.2} of the first; goal: 1.2");
            table.row(
                &format!("{what}, {} pending", one.pending),
                "ms",
                &figures,
                &beside,
            );
        }
    }
}
