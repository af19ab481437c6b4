//! What the older PostTLS did each minute: `mailq`, and one `postcat` for each message in it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use posttls::sandbox::Instance;

use crate::common::Stage;

/// Once through the queue. How long it took, and how many messages there were.
pub fn look(stage: &Stage) -> (Duration, usize) {
    let start = Instant::now();
    let config = stage.sandbox.config_dir(Instance::Encrypt);
    let list = stage.sandbox.run("postqueue", Instance::Encrypt, &["-p"]);
    let list = list.unwrap_or_else(|error| panic!("{error}"));
    // A line that begins with a queue ID begins a message; the others are indented, in brackets, or the summary.
    let ids: Vec<&str> = list
        .lines()
        .filter(|line| {
            line.starts_with(|first: char| first.is_ascii_digit() || first.is_ascii_uppercase())
        })
        .filter_map(|line| line.split([' ', '*', '!']).next())
        .filter(|word| word.len() > 8 && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .collect();
    for id in &ids {
        let shown = Command::new("postcat")
            .arg("-c")
            .arg(&config)
            .args(["-q", id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(shown.expect("postcat").success(), "{id}");
    }
    (start.elapsed(), ids.len())
}
