//! Every key in every place: the shipped file with its comments, the README's table, and the environment.

use std::collections::BTreeMap;

use toml::Value;

use super::environment::variable;
use super::read::{Place, Problem, defaults, entries, parse};
use super::*;

const README: &str = include_str!("../../README.md");
const MINIMAL: &str = "senders.internal = [\"*\"]\nlink.base_url = \"https://x.example\"\n\
                       [notification]\nfrom_address = \"a@x.example\"\nadmin_contact = \"b\"\n";

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Problem> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse(text, &variables.collect())
}

fn refused(text: &str, variables: &[(&str, &str)]) -> (String, String) {
    let problem = with(text, variables).unwrap_err();
    match problem.place {
        Place::Variable(name) => (name, problem.message),
        Place::File(_) => (String::new(), problem.message),
    }
}

/// A value for the variable of a key that differs from the default, in the form of the environment.
fn another(key: &str, default: &Value) -> String {
    match default {
        Value::Integer(number) => (number + 1).to_string(),
        Value::Boolean(on) => (!on).to_string(),
        Value::Table(_) => "{ \"example.de\" = \"de\" }".to_owned(),
        _ => match key {
            "base_url" => "https://elsewhere.example",
            "listen" => "127.0.0.1:1",
            "trusted_proxies" => "192.0.2.1, 192.0.2.2",
            "from_address" | "reply_to" | "admin_address" => "c@elsewhere.example",
            "smtp_tls" => "required",
            "external" | "null" => "tell",
            "automatic" => "ask",
            "internal" | "persons" => "elsewhere.example, .elsewhere.example",
            "after_hours" => "5,6,7",
            "failures" => "[\"refused\"]",
            "language" => "de",
            _ => "/elsewhere",
        }
        .to_owned(),
    }
}

#[test]
fn every_key_can_be_given_as_a_variable() {
    let usual = with(MINIMAL, &[]).unwrap();
    let defaults = defaults().unwrap();
    let mut names = BTreeMap::new();
    for (section, key, default) in entries(&defaults) {
        let name = variable(section, key);
        let value = another(key, default);
        let config = with(MINIMAL, &[(&name, &value)])
            .unwrap_or_else(|problem| panic!("{name}={value}: {problem:?}"));
        assert_ne!(config, usual, "{name}={value} changes nothing");
        assert_eq!(names.insert(name, key), None, "two keys, one variable");
    }
    assert!(names.len() > 40, "{names:?}");
}

#[test]
fn every_key_has_a_comment_and_a_line_in_the_readme() {
    let defaults = defaults().unwrap();
    let table: Vec<&str> = README
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for (section, key, _) in entries(&defaults) {
        let full = format!("`{section}.{key}`");
        let first = format!("`{section}.");
        let listed = table.iter().any(|line| {
            let names = line.split(" | ").next().unwrap_or_default();
            names.contains(&full) || names.contains(&first) && names.contains(&format!(", `{key}`"))
        });
        assert!(listed, "{full} is not in the README's table");
        // The comment may be for two keys that follow each other.
        let start = format!("[{section}]\n");
        let body = DEFAULT_FILE.split(&start).nth(1).unwrap_or_default();
        let lines: Vec<&str> = body
            .lines()
            .take_while(|line| !line.starts_with('['))
            .collect();
        let at = lines
            .iter()
            .position(|line| line.starts_with(&format!("{key} = ")))
            .unwrap_or_else(|| panic!("{full} has no default"));
        let block = lines[..at]
            .rsplit(|line| line.is_empty())
            .next()
            .unwrap_or_default();
        assert!(
            block.iter().any(|line| line.starts_with("# ")),
            "{full} has no comment"
        );
    }
}

#[test]
fn a_variable_comes_before_the_file() {
    let config = with(
        &format!("{MINIMAL}smtp_host = \"file.example\"\nsmtp_port = 26\n"),
        &[("POSTTLS_NOTIFICATION_SMTP_HOST", "env.example")],
    )
    .unwrap();
    assert_eq!(config.notification.smtp_host, "env.example");
    assert_eq!(config.notification.smtp_port, 26);
}

#[test]
fn without_a_file_the_environment_must_give_what_has_no_default() {
    let all = [
        ("POSTTLS_SENDERS_INTERNAL", "example.org,.example.org"),
        ("POSTTLS_LINK_BASE_URL", "https://x.example"),
        ("POSTTLS_NOTIFICATION_FROM_ADDRESS", "a@x.example"),
        ("POSTTLS_NOTIFICATION_ADMIN_CONTACT", "b"),
    ];
    let config = with("", &all).unwrap();
    assert_eq!(config.senders.internal.len(), 2);
    let given = |variables: &[(&str, &str)]| {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read::is_enough(&owned.collect()).unwrap()
    };
    assert!(given(&all));
    for missing in 0..all.len() {
        let mut some = all.to_vec();
        let (name, _) = some.remove(missing);
        assert!(!given(&some));
        let (_, message) = refused("", &some);
        assert!(
            message.contains("is missing") && message.contains(name),
            "{message}"
        );
    }
}

#[test]
fn errors_name_the_variable_and_what_would_be_right() {
    for (name, value, wanted) in [
        (
            "POSTTLS_NOTIFICATION_SMTP_PROT",
            "25",
            "unknown variable; did you mean \"POSTTLS_NOTIFICATION_SMTP_PORT\"?",
        ),
        (
            "POSTTLS_NOTIFICATION_SMTP_PORT",
            "smtp",
            "\"smtp\" is not a whole number",
        ),
        (
            "POSTTLS_NOTIFICATION_SMTP_PORT",
            "70000",
            "notification.smtp_port: invalid value",
        ),
        (
            "POSTTLS_NOTIFICATION_TELL_DELIVERED",
            "yes",
            "neither \"true\" nor \"false\"",
        ),
        (
            "POSTTLS_HTTP_LISTEN",
            "nowhere",
            "http.listen: invalid socket address",
        ),
        (
            "POSTTLS_MOVER_WORKERS",
            "0",
            "mover.workers: must be from 1 to 64",
        ),
        ("POSTTLS_SENDERS_INTERNAL", "[\"a\"", "is not a TOML array"),
        (
            "POSTTLS_SENDERS_INTERNAL",
            "example.org,@",
            "senders.internal: \"@\" names no senders",
        ),
        (
            "POSTTLS_NOTIFICATION_LANGUAGES",
            "example.de=de",
            "is not a TOML table",
        ),
        (
            "POSTTLS_RETENTION_DAYS",
            "18",
            "retention.days: must be 0, or at least 19",
        ),
    ] {
        let (place, message) = refused(MINIMAL, &[(name, value)]);
        assert_eq!(place, name, "{message}");
        assert!(message.contains(wanted), "{name}={value}: {message}");
    }
    // The path of the file, and what has nothing to do with us.
    let others = [("POSTTLS_CONFIG", "/x"), ("PATH", "/bin")];
    assert!(with(MINIMAL, &others).is_ok());
}

#[test]
fn a_value_is_never_more_than_one_value() {
    // Text that would be further keys if it were pasted into a file.
    for text in [
        "[\"*\"]\nexternal = \"release\"",
        "[]\n[log]\ntarget = \"stderr\"",
    ] {
        let (place, message) = refused(MINIMAL, &[("POSTTLS_SENDERS_INTERNAL", text)]);
        assert_eq!(place, "POSTTLS_SENDERS_INTERNAL");
        assert!(message.contains("is not a TOML array"), "{message}");
    }
    let text = "x\"\nsmtp_port = 1";
    let config = with(MINIMAL, &[("POSTTLS_NOTIFICATION_SMTP_PASSWORD", text)]).unwrap();
    assert_eq!(config.notification.smtp_password, text);
    assert_eq!(config.notification.smtp_port, 25);
}

#[test]
fn the_older_names_work() {
    let older = [
        ("POSTTLS_NOTIFICATION_SENDER", "old@x.example"),
        ("POSTTLS_NOTIFICATION_SMTP_HOST", "smtp.x.example"),
        (
            "POSTTLS_NOTIFICATION_SYSADMIN_MAIL_ADDRESS",
            "root@x.example",
        ),
        ("POSTTLS_TLS_HOST", "posttls.x.example"),
    ];
    for file in [MINIMAL, DEFAULT_FILE] {
        let config = with(file, &older).unwrap();
        let notification = &config.notification;
        assert_eq!(notification.from_address.as_str(), "old@x.example");
        assert_eq!(notification.smtp_host, "smtp.x.example");
        assert_eq!(notification.admin_contact, "root@x.example");
        let admin = notification.admin_address.as_ref().map(Address::as_str);
        assert_eq!(admin, Some("root@x.example"));
        assert_eq!(config.case_url("T"), "https://posttls.x.example/c/T");
    }
    // A word of its own for admin_address, in the file or as a variable.
    let own = format!("{MINIMAL}admin_address = \"own@x.example\"\n");
    let config = with(&own, &older).unwrap();
    assert_eq!(config.notification.admin_contact, "root@x.example");
    let admin = config.notification.admin_address.unwrap();
    assert_eq!(admin.as_str(), "own@x.example");
    let both = [older[2], ("POSTTLS_NOTIFICATION_ADMIN_ADDRESS", "")];
    let config = with(MINIMAL, &both).unwrap();
    assert_eq!(config.notification.admin_address, None);
    // A URL as it is.
    let config = with(MINIMAL, &[("POSTTLS_TLS_HOST", "http://y.example/p")]).unwrap();
    assert_eq!(config.case_url("T"), "http://y.example/p/c/T");
    // A contact that is no address can't be written to.
    let (place, message) = refused(MINIMAL, &[("POSTTLS_NOTIFICATION_SENDER", "")]);
    assert_eq!(place, "POSTTLS_NOTIFICATION_SENDER", "{message}");
}

#[test]
fn an_older_and_a_newer_name_must_agree() {
    for (older, newer, same, other) in [
        (
            ("POSTTLS_TLS_HOST", "x.example"),
            "POSTTLS_LINK_BASE_URL",
            "https://x.example/",
            "https://y.example",
        ),
        (
            ("POSTTLS_NOTIFICATION_SENDER", "a@x.example"),
            "POSTTLS_NOTIFICATION_FROM_ADDRESS",
            "a@x.example",
            "b@x.example",
        ),
        (
            ("POSTTLS_NOTIFICATION_SYSADMIN_MAIL_ADDRESS", "a@x.example"),
            "POSTTLS_NOTIFICATION_ADMIN_CONTACT",
            "a@x.example",
            "the help desk",
        ),
    ] {
        assert!(with(MINIMAL, &[older, (newer, same)]).is_ok());
        let (place, message) = refused(MINIMAL, &[older, (newer, other)]);
        assert_eq!(place, older.0);
        assert!(message.contains(&format!("keep {newer} only")), "{message}");
    }
}
