//! How the notification reaches the mail server of its sender: with and without TLS, on a server whose certificate
//! nobody has signed.

mod common;

use common::{Stage, came_over_tls};
use posttls::config::{Config, SmtpTls};
use posttls::notify::{self, Letter};
use posttls::sandbox::UpOptions;

fn letter(to: &str) -> Letter {
    Letter {
        to: to.parse().unwrap(),
        content: format!("From: posttls@sender.test\r\nTo: {to}\r\n\r\nbody\r\n").into_bytes(),
    }
}

#[test]
fn opportunistic_tls_takes_any_certificate_and_required_tls_does_not() {
    let stage = Stage::with(|options: UpOptions| options.httpd(false));
    let mut settings = Config::load(&stage.sandbox.config_file())
        .unwrap()
        .notification;
    let port = |domain: &str| {
        let server = &stage.sandbox.description()["domains"][domain]["smtp"];
        let (_, port) = server.as_str().and_then(|s| s.split_once(':')).unwrap();
        port.parse::<u16>().unwrap()
    };

    settings.smtp_tls = SmtpTls::Opportunistic;
    settings.smtp_port = port("tls.test");
    notify::send(&letter("a@tls.test"), &settings).unwrap();
    assert!(came_over_tls(&stage.arrival("a@tls.test")));
    settings.smtp_port = port("plain.test");
    notify::send(&letter("b@plain.test"), &settings).unwrap();
    assert!(!came_over_tls(&stage.arrival("b@plain.test")));

    settings.smtp_tls = SmtpTls::Required;
    for domain in ["tls.test", "plain.test"] {
        settings.smtp_port = port(domain);
        let error = notify::send(&letter("c@tls.test"), &settings).unwrap_err();
        assert!(!error.is_permanent(), "{error}");
    }
}
