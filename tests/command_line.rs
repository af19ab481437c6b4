//! What the command lines of the programs say about themselves.

use std::process::{Command, Output};

fn posttls(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_posttls"))
        .args(arguments)
        .output()
        .expect("posttls runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_command_explains_itself_and_its_flags() {
    let commands: [(&[&str], &[&str]); 17] = [
        (
            &[],
            &[
                "--config",
                "--version",
                "init",
                "cases",
                "case",
                "release",
                "delete",
                "sandbox",
                "demo",
                "mandatory",
                "consents",
                "66 no such case",
            ],
        ),
        (
            &["init"],
            &[
                "--base-url",
                "--from",
                "--admin-contact",
                "--pipe-user",
                "--no-users",
                "--internal",
                "--encrypt-dir",
                "--config",
            ],
        ),
        (
            &["cases"],
            &["--state", "--all", "--json", "open|watched|closed"],
        ),
        (&["case"], &["<QUEUE_ID>", "--json"]),
        (&["release"], &["<QUEUE_ID>", "--recipient", "--json"]),
        (&["delete"], &["<QUEUE_ID>", "--recipient", "--json"]),
        (&["mandatory"], &["add", "remove", "list"]),
        (&["mandatory", "add"], &["<DOMAIN>...", "--json"]),
        (&["mandatory", "remove"], &["<DOMAIN>...", "--json"]),
        (&["mandatory", "list"], &["--all", "--json"]),
        (&["consents"], &["list", "revoke"]),
        (&["consents", "list"], &["--all", "--sender", "--json"]),
        (&["consents", "revoke"], &["<ID>...", "--json"]),
        (&["sandbox"], &["up", "down"]),
        (
            &["sandbox", "up"],
            &["--dir", "--no-httpd", "--long-queue-ids", "--toml"],
        ),
        (&["sandbox", "down"], &["--dir", "--remove"]),
        (&["demo"], &["--auto"]),
    ];
    for (command, flags) in commands {
        let output = posttls(&[command, &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        let help = String::from_utf8(output.stdout).expect("text");
        for flag in flags {
            assert!(help.contains(flag), "{command:?} {flag}: {help}");
        }
    }
    for program in [
        env!("CARGO_BIN_EXE_posttls-pipe"),
        env!("CARGO_BIN_EXE_posttls-httpd"),
    ] {
        let output = Command::new(program)
            .arg("--help")
            .output()
            .expect("it runs");
        assert!(output.status.success() && said(&output).contains("--config"));
    }
}
