//! Checks of what answers: the mover, the web server, the way that links take, and the mail server for notifications.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::process::Command;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};
use url::Url;

use super::context::Context;
use super::listeners::listeners;
use super::{Outcome, Skip, Verdict};
use crate::case::CaseId;
use crate::config::SenderPattern;
use crate::link::Keys;
use crate::mover::control;
use crate::postfix::instance::PROGRAM_PATH;
use crate::postfix::settings::list;
use crate::postfix::{Service, Settings};
use crate::text;

/// Whoever takes longer than this is no help to a sender who waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

const START: &str = "systemctl restart posttls-httpd, and read its log";

pub(super) fn mover(at: &Context<'_>) -> Outcome {
    let own = env!("CARGO_PKG_VERSION");
    Ok(match control::ping(&at.config.mover.run_dir, PATIENCE) {
        Ok(Some(pulse)) if pulse.version != own => Verdict::warn(
            format!(
                "posttls-httpd runs in version {}, this is {own}",
                pulse.version
            ),
            "systemctl restart posttls-httpd",
        ),
        Ok(Some(pulse)) => Verdict::ok(format!(
            "posttls-httpd runs; decisions to be carried out: {}",
            pulse.unfinished
        )),
        Ok(None) => Verdict::fail(
            "posttls-httpd does not run: no decision is carried out",
            START,
        ),
        Err(error) => Verdict::fail(format!("posttls-httpd: {error}"), START),
    })
}

/// A request, past any proxy of the environment; with a form if there is one. Status and text of the answer.
fn ask(url: &str, form: Option<&str>) -> Result<(u16, String), ureq::Error> {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
    let agent = Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(tls.build())
        .build()
        .new_agent();
    let mut response = match form {
        None => agent.get(url).call()?,
        Some(form) => agent
            .post(url)
            .content_type("application/x-www-form-urlencoded")
            .send(form)?,
    };
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(64 * 1024);
    let text = body.lossy_utf8(true).read_to_string()?;
    Ok((status, text))
}

pub(super) fn web_server(at: &Context<'_>) -> Outcome {
    let mut address = at.config.http.listen;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    // Any user can take a port that is free, from 1024 on, and answer what we would.
    if let Some(other) = listeners(address).into_iter().find(|user| *user != 0) {
        return Ok(Verdict::fail(
            format!(
                "at {address} listens a process of user {other}, not posttls-httpd: links lead to it, and it can decide \
                 whatever their senders may"
            ),
            "find it (`ss -ltnp`) and stop it, restart posttls-httpd, and choose a port below 1024 for http.listen",
        ));
    }
    let url = format!("http://{address}/healthz");
    Ok(match ask(&url, None) {
        Ok((200, text)) if text == "ok\n" => Verdict::ok(format!("web server at {address}")),
        Ok((status, text)) => {
            let text = text::readable(&text, 100);
            Verdict::fail(format!("{url} answers {status}: {text}"), START)
        }
        Err(error) => Verdict::fail(format!("{url}: {error}"), START),
    })
}

/// The address of the style sheet that a page names.
fn style_of(page: &str, url: &str) -> Option<Url> {
    let (_, rest) = page.split_once("rel=\"stylesheet\"")?;
    let (_, rest) = rest.split_once("href=\"")?;
    let (address, _) = rest.split_once('"')?;
    // A path needs no more of HTML's escapes than this.
    let address = address.replace("&#x2f;", "/").replace("&amp;", "&");
    Url::parse(url).ok()?.join(&address).ok()
}

/// Opens a link of our own that has expired long ago: only who has our key can say so. Then all that a sender does with
/// a page: load its style, and post its form, which answers the same.
pub(super) fn base_url(at: &Context<'_>) -> Outcome {
    let keys =
        Keys::load(&at.config.link.key_file).map_err(|_| Skip("the link key can't be read"))?;
    let base = at.config.link.base_url.as_str();
    let url = at.config.case_url(&keys.sign(CaseId(0), 1));
    let todo = "see that link.base_url leads, through the reverse proxy, to posttls-httpd; also from this host";
    let fault = |error: ureq::Error| {
        let text = error.to_string();
        let todo = if text.contains("certificate") {
            "see that the proxy's certificate is one that this host accepts, as your senders' browsers must: of a CA \
             that it knows (update-ca-certificates), or, for a try, a self-signed one that is no CA's"
        } else {
            todo
        };
        Verdict::fail(format!("{base}: {text}"), todo)
    };
    let page = match ask(&url, None) {
        Ok((410, page)) => page,
        Ok((404, _)) => {
            return Ok(Verdict::fail(
                format!("{base} does not know our links (404)"),
                "see that the proxy passes on paths as they are, and reload posttls-httpd if the key has changed",
            ));
        }
        Ok((status, _)) => {
            let what = format!("{base} answers {status}, and is not ours");
            return Ok(Verdict::fail(what, todo));
        }
        Err(error) => return Ok(fault(error)),
    };
    match ask(&url, Some("action=keep")) {
        Ok((410, _)) => {}
        Ok((status, _)) => {
            return Ok(Verdict::fail(
                format!(
                    "{base}: links open, but a form that is posted there is answered with {status}"
                ),
                "see that the proxy passes POST on as it is, with its path and body: senders can look, and not decide",
            ));
        }
        Err(error) => return Ok(fault(error)),
    }
    let Some(style) = style_of(&page, &url) else {
        // A layout of the admin's own need not have one.
        return Ok(Verdict::ok(format!("links work, and forms: {base}")));
    };
    Ok(match ask(style.as_str(), None) {
        Ok((200, _)) => Verdict::ok(format!("links work, with forms and style: {base}")),
        Ok((status, _)) => Verdict::fail(
            format!("{base}: links open, but {style}, which their pages name, answers {status}"),
            "see that the proxy passes on everything below link.base_url",
        ),
        Err(error) => fault(error),
    })
}

/// The port that master.cf names, by number or by service name.
fn port_of(name: &str) -> Option<u16> {
    if let Ok(port) = name.parse() {
        return Some(port);
    }
    let output = Command::new("getent")
        .env_clear()
        .env("PATH", PROGRAM_PATH)
        .args(["services", "--", name])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace()
        .nth(1)?
        .split('/')
        .next()?
        .parse()
        .ok()
}

/// Is `server` a door of this instance?
fn listens(settings: &Settings, service: &Service, server: SocketAddr) -> bool {
    let (host, name) = service.name.rsplit_once(':').unwrap_or(("", &service.name));
    if port_of(name) != Some(server.port()) {
        return false;
    }
    let host = host.trim_matches(['[', ']']);
    let hosts = if host.is_empty() {
        list(settings.get("inet_interfaces"))
    } else {
        vec![host]
    };
    hosts.iter().any(|host| match *host {
        // The system lets a program listen only on addresses of its own.
        "all" => TcpListener::bind((server.ip(), 0)).is_ok(),
        "loopback-only" => server.ip().is_loopback(),
        name => (name, 0)
            .to_socket_addrs()
            .is_ok_and(|mut found| found.any(|found| found.ip() == server.ip())),
    })
}

/// Does the instance deliver mail for `domain` itself?
fn is_local(settings: &Settings, domain: &str) -> bool {
    ["mydestination", "virtual_mailbox_domains"]
        .into_iter()
        .flat_map(|name| list(settings.get(name)))
        .any(|word| {
            word.eq_ignore_ascii_case(domain)
                || word.contains(':') && matches!(settings.lookup(word, domain), Ok(Some(_)))
        })
}

pub(super) fn notification_route(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let (host, port) = (
        at.config.notification.smtp_host.as_str(),
        at.config.notification.smtp_port,
    );
    let servers: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map(Iterator::collect)
        .map_err(|_| Skip("notification.smtp_host has no address"))?;
    let same: Vec<IpAddr> = servers
        .into_iter()
        .filter(|server| {
            settings
                .services
                .iter()
                .filter(|service| service.kind == "inet" && !settings.is_disabled(service))
                .any(|service| listens(settings, service, *server))
        })
        .map(|server| server.ip())
        .collect();
    if same.is_empty() {
        return Ok(Verdict::ok(format!(
            "notifications: {host}:{port} is not the encrypt instance"
        )));
    }
    let elsewhere: Vec<String> = at
        .config
        .senders
        .internal
        .iter()
        .filter_map(|pattern| match pattern {
            SenderPattern::Everybody => Some("*".to_owned()),
            SenderPattern::Below(domain) => Some(format!(".{domain}")),
            SenderPattern::Domain(domain) | SenderPattern::Address(_, domain) => {
                (!is_local(settings, domain.as_str())).then(|| domain.to_string())
            }
        })
        .collect();
    Ok(if elsewhere.is_empty() {
        Verdict::ok(format!(
            "notifications: {host}:{port} is the encrypt instance, which holds the senders' mailboxes"
        ))
    } else {
        Verdict::warn(
            format!(
                "notifications: {host}:{port} is the encrypt instance, and it does not itself deliver to the senders {}",
                elsewhere.join(", ")
            ),
            "set notification.smtp_host to the server that holds their mailboxes: notifications to a server without \
             TLS get stuck in the encrypt instance, and nobody hears of it",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_is_where_the_page_says() {
        let url = "https://mail.test/posttls/c/TOKEN";
        let page = "<link rel=\"stylesheet\" href=\"/posttls/style.css\">";
        let found = style_of(page, url).map(String::from);
        assert_eq!(
            found.as_deref(),
            Some("https://mail.test/posttls/style.css")
        );
        assert_eq!(style_of("<p>", url), None);
    }
}
