use super::*;

/// What `postconf` would print for these settings.
fn side(name: &str, settings: &[(&str, &str)], services: &str, options: &str) -> Side {
    let mut explicit = String::new();
    let mut values = format!("data_directory = /var/lib/{name}\nrelayhost =\ntransport_maps =\n");
    for (name, value) in settings {
        explicit += &format!("{name} = {value}\n");
        values += &format!("{name} = {value}\n");
    }
    Side::read(
        &explicit,
        &values,
        services,
        &[options.to_owned(), options.to_owned()],
    )
}

const SMTP: &str = "smtp unix - - y - - smtp\n";

fn encrypt(settings: &[(&str, &str)]) -> Side {
    side("postfix", settings, SMTP, "")
}

fn may(settings: &[(&str, &str)]) -> Side {
    side("postfix-may", settings, SMTP, "")
}

fn commands(found: &Comparison) -> Vec<String> {
    let all = found.differences.iter();
    all.filter_map(Difference::command)
        .map(|command| command.join(" "))
        .collect()
}

#[test]
fn what_the_way_out_needs_is_taken_over_and_nothing_else() {
    let encrypt = encrypt(&[
        ("relayhost", "[relay.example.org]:587"),
        ("smtp_sasl_auth_enable", "yes"),
        (
            "smtp_sasl_password_maps",
            "inline:{{[relay.example.org]:587 = user:pa$s}}",
        ),
        ("smtp_tls_security_level", "encrypt"),
        ("smtp_tls_policy_maps", "hash:/etc/postfix/policy"),
        ("smtpd_recipient_restrictions", "reject"),
        (
            "transport_maps",
            "inline:{posttls.invalid=posttls:}, hash:/etc/postfix/transport",
        ),
        (
            "smtp_sasl_auth_cache_name",
            "proxy:btree:/var/lib/postfix/sasl",
        ),
    ]);
    let may = may(&[
        ("smtp_tls_security_level", "may"),
        ("smtp_bind_address", "192.0.2.1"),
        ("minimal_backoff_time", "1s"),
    ]);
    let found = compare(&encrypt, &may, &[]);
    assert_eq!(
        commands(&found),
        [
            "-e relayhost=[relay.example.org]:587",
            "-X smtp_bind_address",
            "-e smtp_sasl_auth_cache_name=proxy:btree:/var/lib/postfix-may/sasl",
            "-e smtp_sasl_auth_enable=yes",
            "-e smtp_sasl_password_maps=inline:{{[relay.example.org]:587 = user:pa$$s}}",
            "-e transport_maps=hash:/etc/postfix/transport",
        ]
    );
    let left: Vec<&str> = found.left.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(left, ["smtp_tls_policy_maps", "smtp_tls_security_level"]);
    assert!(!format!("{:?}", found.differences[4].encrypt).contains("pa$s"));
}

#[test]
fn what_is_alike_is_no_difference_however_it_is_written() {
    let encrypt = encrypt(&[
        (
            "transport_maps",
            "inline:{posttls.invalid=posttls:},hash:/a,  hash:/b",
        ),
        ("smtp_tls_exclude_ciphers", "aNULL, MD5"),
        ("relayhost", ""),
    ]);
    let may = may(&[
        ("transport_maps", "hash:/a hash:/b"),
        ("smtp_tls_exclude_ciphers", "aNULL MD5"),
    ]);
    assert_eq!(compare(&encrypt, &may, &[]), Comparison::default());
}

#[test]
fn what_the_admin_wants_otherwise_is_left_alone() {
    let encrypt = encrypt(&[("relayhost", "[a]"), ("smtp_bind_address", "192.0.2.1")]);
    let may = may(&[("relayhost", "[b]")]);
    let found = compare(&encrypt, &may, &["relayhost".to_owned()]);
    assert_eq!(commands(&found), ["-e smtp_bind_address=192.0.2.1"]);
    assert_eq!(found.left[0].why, BY_WISH);
}

#[test]
fn what_cannot_be_taken_over_is_named_and_left_to_hands() {
    let encrypt = encrypt(&[
        ("transport_maps", "socketmap:unix:private/map:transport"),
        ("smtp_tls_wrappermode", "yes"),
    ]);
    let found = compare(&encrypt, &may(&[]), &[]);
    assert_eq!(found.differences.len(), 2);
    assert!(commands(&found).is_empty());
}

#[test]
fn services_that_send_are_taken_over_without_their_level() {
    let services = "smtp unix - - y - - smtp\n\
                    slow unix - - y - 2 smtp -v -o smtp_bind_address=192.0.2.1 -o {smtp_helo_name=a  b} -o smtp_tls_security_level=may\n\
                    amavis unix - - n - 2 lmtp\n\
                    posttls unix - n n - 8 pipe flags=Rq\n";
    let options = "slow/unix/smtp_bind_address = 192.0.2.1\nslow/unix/smtp_helo_name = a b\nslow/unix/smtp_tls_security_level = may\n";
    let encrypt = side(
        "postfix",
        &[("slow_destination_rate_delay", "1s")],
        services,
        options,
    );
    let found = compare(&encrypt, &may(&[]), &[]);
    assert_eq!(
        commands(&found),
        [
            "-e slow_destination_rate_delay=1s",
            "-M slow/unix=slow unix - - y - 2 smtp -v -o smtp_bind_address=192.0.2.1 -o {smtp_helo_name=a b}",
        ]
    );

    // One that is there keeps its columns, and what is its own business.
    let there = "smtp unix - - y - - smtp\nslow unix - - n - 5 smtp -o syslog_name=x -o smtp_bind_address=192.0.2.9\n";
    let written = "slow/unix/syslog_name = x\nslow/unix/smtp_bind_address = 192.0.2.9\n";
    let may = side(
        "postfix-may",
        &[("slow_destination_rate_delay", "1s")],
        there,
        written,
    );
    let found = compare(&encrypt, &may, &[]);
    assert_eq!(
        commands(&found),
        [
            "-M slow/unix=slow unix - - n - 5 smtp -o syslog_name=x -o smtp_bind_address=192.0.2.1 -o {smtp_helo_name=a b}"
        ]
    );
    let none = compare(&encrypt, &may, &["slow/unix".to_owned()]);
    assert!(none.differences.is_empty());
}

#[test]
fn a_name_that_another_program_has_is_left_to_hands() {
    let encrypt = side("postfix", &[], "slow unix - - y - - smtp\n", "");
    let may = side("postfix-may", &[], "slow unix - - n - - error\n", "");
    let found = compare(&encrypt, &may, &[]);
    assert!(matches!(found.differences[0].remedy, Remedy::ByHand(_)));
}
