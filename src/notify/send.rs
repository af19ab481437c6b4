//! Hands the notification to the configured server.

use std::time::Duration;

use lettre::SmtpTransport;
use lettre::Transport as _;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};

use super::Letter;
use crate::config::{Notification, SmtpTls};

/// Why the server did not take the notification.
#[derive(Debug, thiserror::Error)]
#[error("{server} did not take the notification for <{to}>: {source}")]
pub struct SendError {
    server: String,
    to: String,
    source: lettre::transport::smtp::Error,
}

impl SendError {
    /// Has the server refused for good (a 5xx reply)? Everything else may be better later.
    pub fn is_permanent(&self) -> bool {
        self.source.is_permanent()
    }
}

/// Sends one letter and returns when the server has taken it.
///
/// # Errors
/// When it did not.
pub fn send(letter: &Letter, settings: &Notification) -> Result<(), SendError> {
    let server = format!("{}:{}", settings.smtp_host, settings.smtp_port);
    let fault = |source| SendError {
        server: server.clone(),
        to: letter.to.to_string(),
        source,
    };
    let mut builder = SmtpTransport::builder_dangerous(&settings.smtp_host)
        .port(settings.smtp_port)
        .timeout(Some(Duration::from_secs(settings.smtp_timeout_seconds)));
    if settings.smtp_tls != SmtpTls::None {
        // Who would go on in plain text gains nothing by turning away a certificate that is not in order: Debian's own
        // Postfix offers STARTTLS with one that nobody has signed.
        let any_certificate = settings.smtp_tls == SmtpTls::Opportunistic;
        let parameters = TlsParameters::builder(settings.smtp_host.clone())
            .dangerous_accept_invalid_certs(any_certificate)
            .dangerous_accept_invalid_hostnames(any_certificate)
            .build()
            .map_err(fault)?;
        builder = builder.tls(match settings.smtp_tls {
            SmtpTls::Required => Tls::Required(parameters),
            SmtpTls::Wrapper => Tls::Wrapper(parameters),
            SmtpTls::Opportunistic | SmtpTls::None => Tls::Opportunistic(parameters),
        });
    }
    if !settings.smtp_user.is_empty() {
        builder = builder.credentials(Credentials::new(
            settings.smtp_user.clone(),
            settings.smtp_password.clone(),
        ));
    }
    builder
        .build()
        .send(&letter.message)
        .map(drop)
        .map_err(fault)
}
