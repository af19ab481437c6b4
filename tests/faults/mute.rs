//! Nobody reads what our programs say, and nothing takes their log: a full disk, a closed pipe. They do their work.

use std::fs;
use std::io;
use std::process::{Child, Command, Output, Stdio};

use posttls::sandbox::Instance;
use rustix::process::Signal;

use crate::common::{Stage, signal, try_request};

/// Ends by itself what a test has started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            signal(self.0.id(), Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// Standard errors that take nothing.
fn takes_nothing() -> [Stdio; 2] {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let full = fs::File::options().write(true).open("/dev/full");
    [writer.into(), full.expect("a device").into()]
}

#[test]
fn decisions_are_carried_out_all_the_same() {
    let stage = Stage::with(|options| options.httpd(false));
    stage.configure("log", "target", "\"/dev/full\"");
    for (number, error) in takes_nothing().into_iter().enumerate() {
        let program = stage.sandbox.program("posttls-httpd");
        let mut command = Command::new(program);
        command.arg("--config").arg(stage.sandbox.config_file());
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut mover = Running(command.stderr(error).spawn().expect("it starts"));
        let health = format!("{}/healthz", stage.sandbox.http());
        stage.wait("an answer", || {
            let answer = try_request("GET", &health, "").ok()?;
            (answer.status == 200).then_some(())
        });
        let to = format!("bob{number}@plain.test");
        let (queue_id, link) = stage.stuck(&[&to, "eve@plain.test"], "mute");
        // Refused, forged and carried out: each is a line of the log.
        let unknown = format!("{}/c/{}", stage.sandbox.http(), "A".repeat(40));
        assert_eq!(stage.get(&unknown).status, 404);
        let answer = stage.post(
            &link,
            &format!("action=send&recipient=bob{number}%40plain.test"),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
        stage.arrival(&to);
        stage.becomes(&queue_id, &to, "released");
        // The ear, too, has nowhere to say anything.
        stage.wait("what the ear heard", || {
            let case = stage.case(&queue_id).to_string();
            case.contains("sent-clear").then_some(())
        });
        assert_eq!(stage.post(&link, "action=delete").status, 200);
        assert!(
            matches!(mover.0.try_wait(), Ok(None)),
            "{:?}",
            mover.0.try_wait()
        );
        signal(mover.0.id(), Signal::TERM);
        let status = mover.0.wait().expect("its end");
        assert!(status.success(), "{status}");
    }
    assert!(stage.sandbox.queue(Instance::Encrypt)["deferred"].is_empty());
}

/// What goes wrong ends each program as it always does, and not by a panic.
#[test]
fn every_program_ends_as_it_would() {
    let stage = Stage::with(|options| options.httpd(false));
    stage.configure("log", "target", "\"/dev/full\"");
    let config = stage.sandbox.config_file();
    let missing = stage.dir().join("missing.toml");
    let tries: [(&str, Vec<&str>, i32); 4] = [
        ("posttls", vec!["case", "ABCDEF012345"], 66),
        ("posttls", vec!["release", "ABCDEF012345"], 66),
        ("posttls-httpd", vec![], 1),
        (
            "posttls-pipe",
            vec!["--queue-id", "ABCDEF012345", "--sender", "", "--client", ""],
            75,
        ),
    ];
    for (name, arguments, code) in tries {
        for error in takes_nothing() {
            let config = if name == "posttls" { &config } else { &missing };
            let mut command = Command::new(stage.sandbox.program(name));
            command.arg("--config").arg(config).args(&arguments);
            let command = command.stdin(Stdio::null()).stdout(Stdio::null());
            let Output { status, .. } = command.stderr(error).output().expect("it runs");
            assert_eq!(status.code(), Some(code), "{name} {arguments:?}: {status}");
        }
    }
}
