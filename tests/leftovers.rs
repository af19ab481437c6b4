//! Nothing that a test started outlives it, whatever its result.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Stage;
use common::mount::Small;
use posttls::sandbox::{Instance, processes};

const KILLED: &str = "LEFTOVERS_TEST_KILLED";

/// masters, what they have started, the mover and its children
const MANY: usize = 8;

fn ended(dir: &Path) {
    let begun = Instant::now();
    while !processes(dir).is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "still there: {:?}",
            processes(dir)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn of_a_sandbox_that_is_dropped() {
    let stage = Stage::new();
    let dir = stage.dir().to_owned();
    assert!(processes(&dir).len() > MANY, "{:?}", processes(&dir));
    drop(stage);
    assert_eq!(processes(&dir), Vec::<i32>::new());
}

/// Its master can't be asked to stop any more: its lock is out of sight.
#[test]
fn of_an_instance_whose_spool_is_unmounted() {
    let mut mount = None;
    let stage = Stage::with(|options| {
        let spool = options.dir.join("small");
        mount = Small::mount(&spool, 4096);
        if mount.is_none() {
            return options;
        }
        options
            .main_cf(Instance::May, "message_size_limit", "100000")
            .main_cf(Instance::May, "queue_minfree", "0")
            .spool(Instance::May, spool.join("spool"))
    });
    let dir = stage.dir().to_owned();
    drop(mount);
    drop(stage);
    assert_eq!(processes(&dir), Vec::<i32>::new());
}

/// Run by the next one alone.
#[test]
fn waits_to_be_killed() {
    if std::env::var_os(KILLED).is_none() {
        return;
    }
    let stage = Stage::new();
    println!("\ndirectory {}", stage.dir().display());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn of_a_test_program_that_is_killed() {
    let mut program = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "waits_to_be_killed", "--nocapture"])
        .env(KILLED, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let said = BufReader::new(program.stdout.take().expect("its output"));
    let dir = said
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("directory ").map(PathBuf::from))
        .expect("a directory");
    assert!(processes(&dir).len() > MANY, "{:?}", processes(&dir));
    program.kill().expect("it dies");
    program.wait().expect("it ends");
    ended(&dir);
    // Nobody else can remove it.
    std::fs::remove_dir_all(dir).expect("its directory");
}
