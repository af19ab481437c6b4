//! `posttls demo`: the main job, shown on real Postfix in a sandbox, with times.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Zoned;
use mailparse::MailHeaderMap as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{AdminError, Done, print};
use crate::exit::Exit;
use crate::sandbox::{self, Instance, Sandbox, UpOptions};

const SENDER: &str = "alice@sender.test";
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct DemoOptions {
    /// Click by itself, check that everything came out right, clean up, and end.
    #[arg(long)]
    auto: bool,
    /// The directory to use; deleted at the end if the demo created it.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(options: &DemoOptions) -> Done {
    if !rustix::process::geteuid().is_root() {
        return Err(AdminError::new(
            Exit::Usage,
            "the demo must be run as root: Postfix's master needs it",
        ));
    }
    let dir = options.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("posttls-demo-{}", std::process::id()))
    });
    let ours = !dir.exists();
    // Caught from here on, so that Ctrl-C at any moment leaves nothing running.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let result = show(options.auto, &dir, &mut signals);
    sandbox::down(&dir, ours && dir.exists())?;
    say("Cleaned up: nothing of it runs any more.")?;
    result
}

/// A line with the time of day.
fn say(text: &str) -> Result<(), AdminError> {
    print(&format!(
        "{}  {text}\n",
        Zoned::now().strftime("%H:%M:%S%.3f")
    ))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    | {line}\n")).collect()
}

fn show(auto: bool, dir: &std::path::Path, signals: &mut Signals) -> Done {
    say(&format!(
        "Starting three Postfix instances (encrypt, may, and mx for the rest of the world) in {} ...",
        dir.display()
    ))?;
    let demo = Demo {
        sandbox: sandbox::up(&UpOptions::new(dir))?,
    };
    say("Started. Pages are served at:")?;
    print(&format!("    {}\n", demo.sandbox.http()))?;

    say(&format!(
        "{SENDER} writes to bob@tls.test, whose server has TLS ..."
    ))?;
    let id = demo.submit("bob@tls.test", "Lunch with Bob")?;
    let arrived = demo.arrival("bob@tls.test", "Lunch with Bob")?;
    say(&format!(
        "... delivered at once over TLS: {}",
        by_tls(&arrived)
    ))?;
    expect(
        by_tls(&arrived).contains("TLS"),
        "the mail to bob@tls.test must travel over TLS",
    )?;
    demo.log_lines(Instance::Encrypt, &id)?;

    say(&format!(
        "{SENDER} writes to carol@plain.test, whose server has no TLS ..."
    ))?;
    let sent = Instant::now();
    let id = demo.submit("carol@plain.test", "Contract for Carol")?;
    let letter = demo.sandbox.wait_for("the notification", PATIENCE, || {
        demo.sandbox.inbox().into_iter().next()
    })?;
    say(&format!(
        "... and has an answer in the inbox {} ms later:",
        sent.elapsed().as_millis()
    ))?;
    demo.log_lines(Instance::Encrypt, &id)?;
    let (subject, body) = read(&letter)?;
    print(&indented(&format!("Subject: {subject}\n\n{body}")))?;
    let link = body
        .split_whitespace()
        .find(|word| word.starts_with(demo.sandbox.http()) && word.ends_with("?choice=send"))
        .ok_or_else(|| AdminError::new(Exit::Failure, "there is no link in the notification"))?
        .to_owned();
    expect(
        demo.sandbox.delivered("carol@plain.test").is_empty(),
        "nothing may be sent before the decision",
    )?;

    if !auto {
        say("Your turn: open this link, decide, confirm. Ctrl-C ends the demo.")?;
        print(&format!("    {link}\n"))?;
        return demo.stay(signals);
    }

    say("Opening the link: that alone must change nothing ...")?;
    let (status, _) = request("GET", &link, "")?;
    expect(
        status == 200,
        &format!("the page must be there, but GET answers {status}"),
    )?;
    std::thread::sleep(Duration::from_millis(300));
    expect(
        demo.sandbox.delivered("carol@plain.test").is_empty(),
        "GET must not send anything",
    )?;

    say("Confirming \"send unencrypted\" ...")?;
    let clicked = Instant::now();
    let (status, _) = request("POST", &link, "action=send")?;
    expect(
        status == 200,
        &format!("the decision must be taken, but POST answers {status}"),
    )?;
    let arrived = demo.arrival("carol@plain.test", "Contract for Carol")?;
    say(&format!(
        "... and carol's server has it {} ms later, {}:",
        clicked.elapsed().as_millis(),
        by_tls(&arrived)
    ))?;
    print(&indented(&arrived))?;
    demo.log_lines(Instance::May, "to=<carol@plain.test>")?;
    expect(
        !by_tls(&arrived).contains("over TLS"),
        "carol's server has no TLS",
    )?;

    say("Confirming a second time ...")?;
    request("POST", &link, "action=send")?;
    std::thread::sleep(Duration::from_secs(1));
    let copies = demo.sandbox.delivered("carol@plain.test").len();
    expect(
        copies == 1,
        &format!("carol must have the mail once, but has it {copies} times"),
    )?;
    say("... changes nothing: carol has the mail once.")?;
    for instance in [Instance::Encrypt, Instance::May] {
        let left = demo.sandbox.wait_for("empty queues", PATIENCE, || {
            let queue = demo.sandbox.queue(instance);
            queue.values().all(Vec::is_empty).then_some(())
        });
        expect(
            left.is_ok(),
            &format!("the queues of the instance {instance} must be empty"),
        )?;
    }
    say("Both queues are empty. Everything came out right.")?;
    Ok(Exit::Ok)
}

fn expect(holds: bool, what: &str) -> Result<(), AdminError> {
    if holds {
        Ok(())
    } else {
        Err(AdminError::new(
            Exit::Failure,
            format!("this came out wrong: {what}"),
        ))
    }
}

struct Demo {
    sandbox: Sandbox,
}

impl Demo {
    fn submit(&self, to: &str, subject: &str) -> Result<String, AdminError> {
        let message = format!(
            "From: {SENDER}\nTo: {to}\nSubject: {subject}\nMessage-ID: <{}@sender.test>\n\nHello!\n",
            subject.replace(' ', "-")
        );
        Ok(self.sandbox.submit(SENDER, &[to], message.as_bytes())?)
    }

    fn arrival(&self, recipient: &str, subject: &str) -> Result<String, AdminError> {
        let raw = self
            .sandbox
            .wait_for(&format!("the mail at {recipient}"), PATIENCE, || {
                self.sandbox.delivered(recipient).into_iter().next()
            })?;
        let text = String::from_utf8_lossy(&raw).into_owned();
        expect(
            text.contains(subject),
            &format!("{recipient} must have the mail \"{subject}\""),
        )?;
        Ok(text)
    }

    /// Shows what an instance logged about a delivery.
    fn log_lines(&self, instance: Instance, about: &str) -> Result<(), AdminError> {
        let log = self.sandbox.log(instance);
        let wanted = |line: &&str| line.contains(about) && line.contains("status=");
        let lines: Vec<&str> = log.lines().filter(wanted).collect();
        print(&indented(&lines.join("\n")))
    }

    /// Reports mail that arrives until somebody wants to end.
    fn stay(&self, signals: &mut Signals) -> Done {
        let mut told = false;
        while signals.pending().next().is_none() {
            std::thread::sleep(Duration::from_millis(100));
            if !told
                && let Some(raw) = self
                    .sandbox
                    .delivered("carol@plain.test")
                    .into_iter()
                    .next()
            {
                told = true;
                let text = String::from_utf8_lossy(&raw).into_owned();
                say(&format!("carol's server has the mail, {}:", by_tls(&text)))?;
                print(&indented(&text))?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// How the last hop travelled, by the first Received header: the mx writes "with ESMTPS" when TLS was used.
fn by_tls(message: &str) -> &'static str {
    let first: String = message
        .split("Received: ")
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    if first.contains("with ESMTPS") {
        "over TLS"
    } else {
        "unencrypted"
    }
}

/// Subject and plain text of a notification.
fn read(raw: &[u8]) -> Result<(String, String), AdminError> {
    let mail = mailparse::parse_mail(raw)?;
    let plain = mail
        .subparts
        .first()
        .ok_or_else(|| AdminError::new(Exit::Failure, "the notification has no parts"))?;
    Ok((
        mail.headers.get_first_value("Subject").unwrap_or_default(),
        plain.get_body()?,
    ))
}

/// One HTTP request; status and body.
fn request(method: &str, url: &str, form: &str) -> Result<(u16, String), AdminError> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    let body = format!(
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("{url} gives no HTTP answer")))?;
    Ok((
        status,
        answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default(),
    ))
}
