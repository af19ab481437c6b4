//! The check that the encrypt instance can do TLS at all: protocols, ciphers, certificates and authorities as its smtp(8)
//! has them, tried by Postfix's own posttls-finger(1) on a server of OpenSSL's on the loopback interface. What fails here
//! fails with every server, and is our fault.
//!
//! Nothing is sent, and nothing is left: key and certificate are made for the moment, in memory.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::context::Context;
use super::plain::split;
use super::{Outcome, Skip, Verdict};
use crate::postfix::command::answer;
use crate::postfix::instance::PROGRAM_PATH;
use crate::postfix::{Service, Settings};
use crate::text;

const PATIENCE: Duration = Duration::from_secs(8);

/// A server that ends with this value.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl() -> Command {
    let mut command = Command::new("openssl");
    command.env_clear().env("PATH", PROGRAM_PATH);
    command
}

/// A file that only this process and its children know.
fn in_memory(name: &str) -> Result<(OwnedFd, String), String> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC).map_err(|error| error.to_string())?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok((file, path))
}

impl Server {
    /// Starts one with OpenSSL's own defaults and a certificate of its own.
    fn start() -> Result<Self, String> {
        let (_key, key_path) = in_memory("key")?;
        let (_certificate, path) = in_memory("certificate")?;
        let mut make = openssl();
        make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
            .args(["-subj", "/CN=check.posttls.invalid"])
            .args(["-keyout", &key_path, "-out", &path]);
        let made = answer(&mut make, &[], PATIENCE).map_err(|error| format!("openssl: {error}"))?;
        if !made.status.success() {
            return Err(format!("openssl req: {}", said(&made)));
        }
        let child = openssl()
            .args(["s_server", "-accept", "127.0.0.1:0"])
            .args(["-cert", &path, "-key", &key_path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("openssl: {error}"))?;
        let mut server = Self { child, port: 0 };
        if let Some(input) = &mut server.child.stdin {
            // What a mail server would say once it is encrypted, to the end: posttls-finger waits for an answer to its QUIT.
            input
                .write_all(
                    b"220 check.posttls.invalid ESMTP\r\n250 check.posttls.invalid\r\n221 Bye\r\n",
                )
                .map_err(|error| format!("openssl s_server: {error}"))?;
        }
        let output = server.child.stdout.take();
        let (found, port) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output?).lines() {
                // It is read to its end, or the server would stand still; whoever waits for the port may be gone.
                let line = line.ok()?;
                let port = line
                    .strip_prefix("ACCEPT ")
                    .and_then(|at| at.rsplit(':').next());
                if let Some(port) = port.and_then(|port| port.trim().parse().ok()) {
                    let _ = found.send(port);
                }
            }
            Some(())
        });
        server.port = port
            .recv_timeout(PATIENCE)
            .map_err(|_| "openssl s_server does not say where it listens".to_owned())?;
        Ok(server)
    }
}

/// What a command said, on one line, without what this check brings about itself.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let lines = text
        .lines()
        .filter(|line| !line.contains("lost connection while"));
    let lines = lines.map(|line| line.trim_start_matches("posttls-finger: "));
    text::readable(&lines.collect::<Vec<_>>().join("; "), 300)
}

/// posttls-finger(1) with the settings that smtp(8) has where TLS is mandatory.
fn finger(settings: &Settings, service: &Service, port: u16) -> Command {
    let value = |name: &str| settings.for_service(service, name);
    let grade = value("smtp_tls_mandatory_ciphers");
    let mut ciphers = value(&format!("tls_{grade}_cipherlist")).to_owned();
    for name in [
        "smtp_tls_exclude_ciphers",
        "smtp_tls_mandatory_exclude_ciphers",
    ] {
        for cipher in value(name)
            .split([' ', ',', '\t', ':'])
            .filter(|word| !word.is_empty())
        {
            ciphers += &format!(":!{cipher}");
        }
    }
    let mut command = Command::new("posttls-finger");
    command
        .env_clear()
        .env("PATH", PROGRAM_PATH)
        .env("LC_ALL", "C")
        .env("MAIL_CONFIG", &settings.config_dir)
        .args([
            "-w", "-c", "-l", "encrypt", "-L", "summary", "-t", "5", "-T", "5",
        ])
        .args(["-p", value("smtp_tls_mandatory_protocols"), "-g", grade])
        .args(["-o", &format!("tls_{grade}_cipherlist={ciphers}")])
        .args(["-o", "smtp_dns_support_level=disabled"]);
    for (option, name) in [
        ("-F", "smtp_tls_CAfile"),
        ("-P", "smtp_tls_CApath"),
        ("-k", "smtp_tls_cert_file"),
        ("-K", "smtp_tls_key_file"),
        ("-H", "smtp_tls_chain_files"),
    ] {
        let file = value(name);
        if !file.is_empty() {
            command.args([option, file]);
        }
    }
    command.arg(format!("[127.0.0.1]:{port}"));
    command
}

/// The services that smtp(8) asks for help with TLS.
fn helpers(settings: &Settings, service: &Service) -> Option<String> {
    let mut needed = vec!["tlsmgr"];
    if settings.for_service(service, "smtp_tls_connection_reuse") == "yes" {
        needed.push("tlsproxy");
    }
    needed
        .into_iter()
        .find(|name| !settings.running(name).any(|one| one.kind == "unix"))
        .map(str::to_owned)
}

/// A directory of authorities is looked into after smtp(8) has changed its root.
fn outside_of_chroot(settings: &Settings, service: &Service) -> Option<String> {
    let directory = settings.for_service(service, "smtp_tls_CApath");
    if !service.chroot || directory.is_empty() {
        return None;
    }
    let root = Path::new(settings.get("queue_directory"));
    let seen = root.join(directory.trim_start_matches('/'));
    let is_empty = fs::read_dir(&seen).map_or(true, |mut files| files.next().is_none());
    is_empty.then(|| {
        format!(
            "smtp_tls_CApath = {directory}, but {} runs in a chroot, and there is nothing in {}",
            service.id(),
            seen.display()
        )
    })
}

pub(super) fn own_side(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let what = "encrypt instance: its own side of TLS";
    let todo = "correct smtp_tls_mandatory_protocols, smtp_tls_mandatory_ciphers, the excluded ciphers, or the certificate \
                and CA files: no server can be reached over TLS, and senders are told that it is their recipient's fault";
    let (transport, _) = split(settings.get("default_transport"));
    let service = settings
        .service(transport, "unix")
        .filter(|service| service.command == "smtp");
    let Some(service) = service else {
        return Err(Skip("default_transport is no smtp(8) service of master.cf"));
    };
    if let Some(missing) = helpers(settings, service) {
        return Ok(Verdict::fail(
            format!("{what}: master.cf has no service {missing}"),
            "add it as Postfix's own master.cf has it, and reload Postfix",
        ));
    }
    let untried = |why: String| {
        Verdict::warn(
            format!("{what} was not tried: {why}"),
            "install openssl and Postfix's posttls-finger, which this check runs",
        )
    };
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return Ok(untried(why)),
    };
    let output = match answer(&mut finger(settings, service, server.port), &[], PATIENCE) {
        Ok(output) => output,
        Err(error) => return Ok(untried(format!("posttls-finger: {error}"))),
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let agreed = text.lines().find_map(|line| {
        let (_, how) = line.split_once("TLS connection established to ")?;
        let how = how.split_once(": ")?.1;
        Some(how.split(" key-exchange").next().unwrap_or(how).to_owned())
    });
    let blind = outside_of_chroot(settings, service);
    Ok(match (agreed, blind) {
        (Some(_), Some(why)) => Verdict::warn(
            format!("{what}: {why}"),
            "copy the certificates of the authorities there, or use smtp_tls_CAfile, which smtp(8) reads before: where a \
             policy wants a certificate verified, every server fails",
        ),
        (Some(how), None) => Verdict::ok(format!(
            "{what}: agreed with a server here on {how}; the way to others (MTU, firewalls) can't be tried from here"
        )),
        (None, _) if text.contains("usage:") => untried(said(&output)),
        (None, _) => Verdict::fail(format!("{what} fails: {}", said(&output)), todo),
    })
}
