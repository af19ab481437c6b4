//! What answers otherwise than it should: mover, web server, proxy, mail server, and OpenSSL.

use std::fs;
use std::io::{BufRead as _, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;

use posttls::postfix::user::lookup;
use posttls::sandbox::Instance;

use crate::clinic::Clinic;
use crate::common::request;

/// Says at which port it listens, and answers whatever it is asked as posttls-httpd answers to /healthz.
const USURPER: &str = r#"$| = 1; my $door = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 9) or die;
    print $door->sockport, "\n";
    while (my $visitor = $door->accept) {
        sysread $visitor, my $request, 4096;
        print $visitor "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
        close $visitor;
    }"#;

pub fn what_answers(clinic: &mut Clinic) {
    let socket = clinic.path("run/control");
    let aside = clinic.path("run/aside");
    fs::rename(&socket, &aside).expect("a socket");
    clinic.check("a mover that does not listen", &[("mover", "fail")]);
    fs::rename(&aside, &socket).expect("a socket");
    // Nobody listens at the discard port.
    clinic.broken(
        "a web server that is not there",
        |c| c.stage.configure("http", "listen", "\"127.0.0.1:9\""),
        &[("web-server", "fail")],
    );
    // It answers as ours would.
    let mut usurper = Command::new("perl")
        .args(["-MIO::Socket::INET", "-e", USURPER])
        .uid(lookup("nobody").expect("a user").uid)
        .stdout(Stdio::piped())
        .spawn()
        .expect("perl");
    let mut port = String::new();
    let said = usurper.stdout.take().expect("a pipe");
    BufReader::new(said).read_line(&mut port).expect("a port");
    let listen = format!("\"127.0.0.1:{}\"", port.trim());
    clinic.broken(
        "a web server of another user",
        |c| c.stage.configure("http", "listen", &listen),
        &[("web-server", "fail")],
    );
    usurper.kill().expect("it ran");
    usurper.wait().expect("it ended");
    clinic.broken(
        "links that lead nowhere",
        |c| {
            c.stage
                .configure("link", "base_url", "\"http://127.0.0.1:9\"")
        },
        &[("base-url", "fail")],
    );
    clinic.broken(
        "links with another key",
        |c| fs::write(c.path("key"), format!("1 {}\n", "ab".repeat(32))).expect("a file"),
        &[("base-url", "fail")],
    );
    clinic.broken(
        "a mail server that is not there",
        |c| c.stage.configure("notification", "smtp_port", "9"),
        &[("notification-server", "fail"), ("reply-to", "fail")],
    );
    clinic.broken(
        "a mail server without TLS",
        |c| {
            c.stage
                .configure("notification", "smtp_tls", "\"required\"")
        },
        &[("notification-server", "fail"), ("reply-to", "fail")],
    );
    let port = clinic
        .stage
        .sandbox
        .smtp_port(Instance::Encrypt)
        .to_string();
    clinic.broken(
        "notifications through the encrypt instance",
        |c| c.stage.configure("notification", "smtp_port", &port),
        &[("notification-route", "warn")],
    );
    clinic.broken(
        "notifications through the encrypt instance, to mailboxes of its own",
        |c| {
            c.stage.configure("notification", "smtp_port", &port);
            c.stage
                .configure("senders", "internal", "[\"sender.test\"]");
            c.set(Instance::Encrypt, "mydestination=sender.test");
            c.set(Instance::Encrypt, "local_recipient_maps=");
        },
        &[],
    );
}

/// A server on a free port of the loopback interface, for as long as the test runs.
fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

/// A reverse proxy that answers with 405 itself what `refuses` says, by method and path.
fn proxy(to: &str, refuses: fn(&str, &str) -> bool) -> String {
    let to = to.to_owned();
    let port = serve(move |mut stream| {
        let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        // The form is always the same one; what is left of the request need not be read.
        while lines
            .next()
            .and_then(Result::ok)
            .is_some_and(|line| !line.is_empty())
        {}
        let answer = if refuses(method, path) {
            "HTTP/1.1 405 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
        } else {
            let form = if method == "POST" { "action=keep" } else { "" };
            let answer = request(method, &format!("{to}{path}"), form);
            format!("{}\r\n\r\n{}", answer.head, answer.body)
        };
        // Who asked may have gone.
        let _ = stream.write_all(answer.as_bytes());
    });
    format!("\"http://127.0.0.1:{port}\"")
}

pub fn links(clinic: &mut Clinic) {
    let to = clinic.stage.sandbox.description()["http"]
        .as_str()
        .expect("a URL")
        .to_owned();
    for (what, refuses, expected) in [
        ("a proxy", (|_, _| false) as fn(&str, &str) -> bool, &[][..]),
        (
            "a proxy that passes no form on",
            |method, _| method == "POST",
            &[("base-url", "fail")],
        ),
        (
            "a proxy that knows links only",
            |_, path| path.ends_with(".css"),
            &[("base-url", "fail")],
        ),
    ] {
        let base = proxy(&to, refuses);
        clinic.broken(
            what,
            |c| c.stage.configure("link", "base_url", &base),
            expected,
        );
    }
}

/// The port of a mail server that answers so to commands that begin like this, and takes everything else.
fn refusing(command: &'static str, answer: &'static str) -> String {
    let port = serve(move |mut stream| {
        let lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
        let _ = stream.write_all(b"220 refusing.test ESMTP\r\n");
        for line in lines.map_while(Result::ok) {
            let refused = line.starts_with(command);
            let answer = if refused { answer } else { "250 ok" };
            let _ = stream.write_all(format!("{answer}\r\n").as_bytes());
        }
    });
    port.to_string()
}

pub fn mail(clinic: &mut Clinic) {
    let server = clinic.stage.sandbox.description()["domains"]["plain.test"]["smtp"].clone();
    let port = server
        .as_str()
        .and_then(|s| s.rsplit_once(':'))
        .expect("a port")
        .1
        .to_owned();
    for (key, check) in [("reply_to", "reply-to"), ("admin_address", "admin-address")] {
        for (address, status) in [("nouser@tls.test", "fail"), ("busy@tls.test", "warn")] {
            clinic.broken(
                address,
                |c| {
                    c.stage.configure("notification", "smtp_port", &port);
                    c.stage
                        .configure("notification", key, &format!("\"{address}\""));
                },
                &[(check, status)],
            );
        }
        clinic.broken(
            "an address that is taken",
            |c| {
                c.stage
                    .configure("notification", key, "\"anybody@tls.test\"")
            },
            &[],
        );
    }
    clinic.broken(
        "a configuration from before reply_to",
        |c| c.replace("posttls.toml", "reply_to = \"helpdesk@sender.test\"\n", ""),
        &[("reply-to", "warn")],
    );
    // It says nothing about a mailbox elsewhere; but what PostTLS itself sends goes through it.
    let closed = refusing("RCPT TO:", "554 5.7.1 Relay access denied");
    clinic.broken(
        "a server that does not relay",
        |c| c.stage.configure("notification", "smtp_port", &closed),
        &[("reply-to", "skip")],
    );
    clinic.broken(
        "a server that does not relay, to an admin elsewhere",
        |c| {
            c.stage.configure("notification", "smtp_port", &closed);
            c.stage
                .configure("notification", "admin_address", "\"admin@elsewhere.test\"");
        },
        &[("admin-address", "fail"), ("reply-to", "skip")],
    );
    // Nothing but the null sender is wrong with it.
    let picky = refusing("MAIL FROM:<>", "550 5.7.1 no bounces here");
    clinic.broken(
        "a server that takes no mail from <>",
        |c| c.stage.configure("notification", "smtp_port", &picky),
        &[("notification-server", "fail"), ("reply-to", "fail")],
    );
}

pub fn our_own_side_of_tls(clinic: &mut Clinic) {
    let fail = [("encrypt-handshake", "fail")];
    for setting in [
        "smtp_tls_mandatory_protocols=!TLSv1, !TLSv1.1, !TLSv1.2, !TLSv1.3",
        "smtp_tls_mandatory_protocols=nonsense",
        "smtp_tls_mandatory_ciphers=nonsense",
        "smtp_tls_CAfile=/nowhere",
        "smtp_tls_cert_file=/nowhere",
        // The sandbox has no tlsproxy(8).
        "smtp_tls_connection_reuse=yes",
    ] {
        clinic.broken(setting, |c| c.set_both(setting), &fail);
    }
    clinic.broken(
        "no cipher that is left",
        |c| {
            c.set_both("smtp_tls_mandatory_protocols=TLSv1.2");
            c.set_both("smtp_tls_exclude_ciphers=AES, CHACHA20");
            c.set_both("smtp_tls_mandatory_exclude_ciphers=CAMELLIA, ARIA");
        },
        &fail,
    );
    clinic.broken(
        "authorities that smtp(8) can't see",
        |c| {
            c.set_both("smtp_tls_CApath=/etc/ssl/certs");
            let chroot = ["-F", "smtp/unix/chroot=y"];
            let run = c.stage.sandbox.run("postconf", Instance::Encrypt, &chroot);
            run.unwrap_or_else(|error| panic!("{error}"));
        },
        &[("encrypt-handshake", "warn")],
    );
    clinic.broken(
        "few protocols and ciphers, but some",
        |c| {
            c.set_both("smtp_tls_mandatory_protocols=TLSv1.2");
            c.set_both("smtp_tls_exclude_ciphers=CHACHA20");
        },
        &[],
    );
    clinic.broken(
        "no tlsmgr",
        |c| c.replace("encrypt/master.cf", "tlsmgr    unix", "#tlsmgr   unix"),
        &fail,
    );
}
