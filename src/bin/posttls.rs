//! `posttls`, the admin's command.
<<<<<<< HEAD
fn main() -> std::process::ExitCode {
    posttls::admin::main().into()
=======

use std::path::Path;
use std::process::ExitCode;

use posttls::sandbox::{Target, UpOptions, deliver, down, up};

// To be replaced by the real command line; the sandbox needs these three today.
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["sandbox", "deliver", "--maildir", dir] => delivered(&Target::Maildir(Path::new(dir))),
        [
            "sandbox",
            "deliver",
            "--maildir-root",
            root,
            "--recipient",
            recipient,
        ] => delivered(&Target::Recipient {
            root: Path::new(root),
            recipient,
        }),
        ["sandbox", "up", "--dir", dir, ref rest @ ..] => {
            let mut options = UpOptions::new(dir).httpd(!rest.contains(&"--no-httpd"));
            if let Some(at) = rest.iter().position(|word| *word == "--hook") {
                options.hook = rest.get(at + 1).map(|hook| (*hook).into());
            }
            match up(&options) {
                Ok(mut sandbox) => {
                    sandbox.leave_running();
                    println!("{:#}", sandbox.description());
                    ExitCode::SUCCESS
                }
                Err(error) => failed(&error),
            }
        }
        ["sandbox", "down", "--dir", dir] => match down(Path::new(dir), false) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
        _ => ExitCode::from(64),
    }
}

fn delivered(target: &Target<'_>) -> ExitCode {
    match deliver(target, std::io::stdin()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(75)
        }
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("posttls: {error}");
    ExitCode::FAILURE
>>>>>>> wiring
}
