//! Configuration by environment variables, on the way on which each program gets them.

mod common;

use std::process::{Command, Output};

use common::{Stage, header};
use posttls::sandbox::Instance;

#[test]
fn hook_and_daemon_take_variables_from_postfix_and_from_their_start() {
    let stage = Stage::with(|options| {
        options
            .main_cf(
                Instance::Encrypt,
                "export_environment",
                "TZ MAIL_CONFIG LANG { POSTTLS_NOTIFICATION_FROM_NAME = Out of the blue }",
            )
            .httpd_env("POSTTLS_NOTIFICATION_ADMIN_CONTACT", "Room 4711")
    });
    let queue_id = stage.send(&["bob@plain.test"], "exported");
    let mail = stage.notification(&queue_id);
    let from = header(&mail, "From").expect("a From header");
    assert!(from.contains("Out of the blue"), "{from}");
    let page = stage.get(&common::link(&mail)).body;
    assert!(page.contains("Room 4711"), "{page}");
}

fn posttls(config: &str, variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_posttls"))
        .args(["--config", config, "cases"])
        .envs(variables.iter().copied())
        .output()
        .expect("posttls runs")
}

#[test]
fn without_a_file_the_variables_do_and_mistakes_in_them_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("posttls.db").display().to_string();
    drop(posttls::case::store::Store::open(store.as_ref(), true).expect("a store"));
    let nowhere = dir.path().join("posttls.toml").display().to_string();
    let all = [
        ("POSTTLS_SENDERS_INTERNAL", "example.org"),
        ("POSTTLS_STORE_PATH", store.as_str()),
        ("POSTTLS_TLS_HOST", "posttls.example.org"),
        ("POSTTLS_NOTIFICATION_SENDER", "posttls@example.org"),
        (
            "POSTTLS_NOTIFICATION_SYSADMIN_MAIL_ADDRESS",
            "root@example.org",
        ),
    ];
    let output = posttls(&nowhere, &all);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"No open cases.\n");
    for (variables, wanted) in [
        (&all[1..], "cannot read the configuration"),
        (
            &[("POSTTLS_STORE_PAHT", "x")],
            "environment variable POSTTLS_STORE_PAHT: unknown variable; did you mean \"POSTTLS_STORE_PATH\"?",
        ),
        (
            &[("POSTTLS_TLS_HOST", "no host")],
            "environment variable POSTTLS_TLS_HOST: link.base_url: ",
        ),
    ] {
        let config = if variables.len() == 1 {
            std::fs::write(dir.path().join("given.toml"), posttls::config::DEFAULT_FILE)
                .expect("a file");
            dir.path().join("given.toml").display().to_string()
        } else {
            nowhere.clone()
        };
        let output = posttls(&config, variables);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}
