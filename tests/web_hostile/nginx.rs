//! The web child behind real nginx with the configuration that is shipped: only names, ports and paths are other ones.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use posttls::web::protocol::Question;
use rustix::process::{Pid, Signal, kill_process};

use crate::siege::{PROMISED, besieged};
use crate::web_stage::{Response, Stage, TOKEN, open_case};

const SHIPPED: &str = include_str!("../../postfix-conf/nginx.conf.example");

struct Nginx {
    address: SocketAddr,
    process: Child,
    directory: tempfile::TempDir,
}

impl Nginx {
    /// In front of this stage.
    fn before(stage: &Stage) -> Self {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let path = directory.path();
        make_certificate(path);
        // Another program may take the ports before nginx does: then it ends, and others are tried.
        for _ in 0..10 {
            let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let [plain, tls] = ports.map(|port| port.local_addr().unwrap());
            write_configuration(path, plain, tls, stage.address);
            let mut process = Command::new("nginx")
                .arg("-p")
                .arg(path)
                .arg("-c")
                .arg(path.join("nginx.conf"))
                .stdin(Stdio::null())
                .process_group(0)
                .spawn()
                .expect("nginx is installed");
            while process.try_wait().unwrap().is_none() {
                if TcpStream::connect(tls).is_ok() {
                    return Self {
                        address: tls,
                        process,
                        directory,
                    };
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("nginx does not start");
    }

    /// Sends octets over TLS from this address, and reads until nginx closes.
    fn say(&self, source: Ipv4Addr, octets: &str) -> Response {
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-ign_eof", "-verify_return_error"])
            .args([
                "-verify_hostname",
                "posttls.example.org",
                "-servername",
                "posttls.example.org",
            ])
            .arg("-CAfile")
            .arg(self.directory.path().join("cert.pem"))
            .args([
                "-bind",
                &format!("{source}:0"),
                "-connect",
                &self.address.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut input = client.stdin.take().unwrap();
        input.write_all(octets.as_bytes()).unwrap();
        let output = client.wait_with_output().unwrap();
        drop(input);
        Response::parse(&output.stdout)
    }

    fn request(&self, source: Ipv4Addr, line: &str, headers: &str, body: &str) -> Response {
        let host = "Host: posttls.example.org\r\nConnection: close\r\n";
        self.say(
            source,
            &format!("{line} HTTP/1.1\r\n{host}{headers}\r\n{body}"),
        )
    }

    fn click(&self, source: Ipv4Addr) -> Response {
        let headers = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 11\r\n\
                       X-Forwarded-For: 6.6.6.6\r\nPostTLS-Client: 6.6.6.6\r\n";
        self.request(source, &format!("POST /c/{TOKEN}"), headers, "action=keep")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.process.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

fn make_certificate(path: &Path) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=posttls.example.org"])
        .args(["-addext", "subjectAltName=DNS:posttls.example.org"])
        .arg("-keyout")
        .arg(path.join("key.pem"))
        .arg("-out")
        .arg(path.join("cert.pem"))
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
}

fn write_configuration(path: &Path, plain: SocketAddr, tls: SocketAddr, to: SocketAddr) {
    let dir = path.display();
    let mut site = SHIPPED.to_owned();
    for (shipped, ours) in [
        ("    listen [::]:80;\n", String::new()),
        ("    listen [::]:443 ssl;\n", String::new()),
        ("listen 80;", format!("listen {plain};")),
        ("listen 443 ssl;", format!("listen {tls} ssl;")),
        (
            "/etc/ssl/certs/posttls.example.org.pem",
            format!("{dir}/cert.pem"),
        ),
        (
            "/etc/ssl/private/posttls.example.org.key",
            format!("{dir}/key.pem"),
        ),
        ("/var/log/nginx", dir.to_string()),
        ("http://127.0.0.1:8460", format!("http://{to}")),
    ] {
        assert!(site.contains(shipped), "{shipped}");
        site = site.replace(shipped, &ours);
    }
    fs::write(path.join("site.conf"), site).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .collect();
    // As many connections as a server in service has.
    let main = format!(
        "daemon off;\nuser root;\nworker_processes 1;\nworker_rlimit_nofile 16384;\npid {dir}/pid;\n\
         error_log {dir}/error.log;\nevents {{ worker_connections 8192; }}\n\
         http {{\n{temporary}include {dir}/site.conf;\n}}\n"
    );
    fs::write(path.join("nginx.conf"), main).unwrap();
}

fn client(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

#[test]
fn a_click_arrives_and_tricks_do_not() {
    let stage = Stage::in_a_process(open_case(&["a@plain.test"]));
    let nginx = Nginx::before(&stage);
    let page = nginx.request(client(20), &format!("GET /c/{TOKEN}"), "", "");
    assert_eq!(page.status, 200);
    assert!(page.header("Strict-Transport-Security").is_some());
    assert_eq!(nginx.click(client(20)).status, 200);
    {
        let asked = stage.asked.lock().unwrap();
        assert!(
            matches!(asked.last(), Some(Question::Decide { client, .. }) if client.to_string() == "127.0.0.20"),
            "{asked:?}"
        );
    }
    let before = stage.asked.lock().unwrap().len();
    let c = format!("/c/{TOKEN}");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let hidden =
        format!("POST {c} HTTP/1.1\r\nHost: x\r\n{form}Content-Length: 11\r\n\r\naction=send");
    let two_lengths = format!("{form}Content-Length: 0\r\nContent-Length: 5\r\n");
    let both = format!("{form}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n");
    let long_header = format!("X: {}\r\n", "x".repeat(40_000));
    // Which of them nginx refuses by itself, and how, is up to its version.
    let tricks = [
        (format!("GET /{c}"), ""),
        (format!("GET /x/..{c}"), ""),
        (format!("GET /%2e%2e{c}"), ""),
        (format!("GET {c}%00"), ""),
        (format!("GET {c}%0d%0aX:y"), ""),
        (format!("GET {}", c.replacen("/c/", "/c%2f", 1)), ""),
        (format!("GET {c}/"), ""),
        (format!("PUT {c}"), ""),
        (format!("DELETE {c}"), ""),
        (format!("OPTIONS {c}"), ""),
        (format!("TRACE {c}"), ""),
        (format!("get {c}"), ""),
        (format!("GET {c} x"), ""),
        ("GET *".to_owned(), ""),
        ("CONNECT x:443".to_owned(), ""),
        (format!("GET /{}", "x".repeat(3000)), ""),
        (format!("GET {c}"), long_header.as_str()),
        (format!("GET {c}"), "X: a\0b\r\n"),
        (format!("POST {c}"), two_lengths.as_str()),
        (format!("POST {c}"), both.as_str()),
        (format!("POST {c}"), "Content-Length: 262145\r\n"),
    ];
    for ((line, headers), last) in tricks.into_iter().zip(30..) {
        let response = nginx.request(client(last), &line, headers, &hidden);
        let shown = &line[..line.len().min(60)];
        assert!(
            (400..500).contains(&response.status),
            "{shown}: {response:?}"
        );
        assert!(
            !response.body.contains("HTTP/1.1 200"),
            "{shown}: one answer"
        );
    }
    let asked = stage.asked.lock().unwrap();
    assert_eq!(asked.len(), before, "{:?}", &asked[before..]);
}

#[test]
fn guesses_are_counted_by_the_address_that_nginx_sees() {
    let stage = Stage::in_a_process(open_case(&["a@plain.test"]));
    let nginx = Nginx::before(&stage);
    // nginx itself lets ten through at once.
    let guess = |number: u32| {
        let line = format!("GET /c/{number:020}");
        nginx
            .request(client(90), &line, "X-Forwarded-For: 192.0.2.1\r\n", "")
            .status
    };
    let statuses: Vec<u16> = (0..20).map(guess).collect();
    assert_eq!(statuses[..8], [404; 8]);
    assert!(
        statuses.iter().all(|status| [404, 429].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(nginx.click(client(91)).status, 200);
}

/// Slow clients before nginx, and local users beside it that come from the same address as nginx does.
#[test]
fn a_click_is_answered_within_a_second_while_two_thousand_hang() {
    let stage = Stage::in_a_process(open_case(&["a@plain.test"]));
    let nginx = Nginx::before(&stage);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x01\x02\x03\x04";
    let request = b"GET /c/AbCdEf0123456789-_ HTTP/1.1\r\nHost: x\r\n";
    let sieges: [(SocketAddr, &'static [u8]); 2] =
        [(nginx.address, hello), (stage.address, request)];
    for ((address, octets), first) in sieges.into_iter().zip([100, 110]) {
        besieged(
            address,
            |_| Ipv4Addr::LOCALHOST,
            octets,
            || {
                let mut times: Vec<Duration> = (first..first + 5)
                    .map(|last| {
                        let start = Instant::now();
                        assert_eq!(nginx.click(client(last)).status, 200);
                        start.elapsed()
                    })
                    .collect();
                times.sort();
                assert!(times[2] < PROMISED, "{times:?}");
            },
        );
    }
}
