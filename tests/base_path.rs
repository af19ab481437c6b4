//! Pages below a path of a host that has others, too: behind real nginx that passes the path on or takes it off, in a
//! real browser.

mod chromium;
mod common;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use chromium::sender::Sender;
use common::Stage;
use rustix::process::{Pid, Signal, kill_process};

struct Nginx {
    process: Child,
    _directory: tempfile::TempDir,
}

impl Nginx {
    /// On this port: `/tls/` leads to posttls-httpd at `http`, with that path or without it, and everything else to nobody.
    fn start(port: u16, http: &str, keeps_path: bool) -> Self {
        let directory = tempfile::tempdir_in("/tmp").expect("a directory");
        let dir = directory.path().display();
        let to = if keeps_path { "" } else { "/" };
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/error.log;\nevents {{ }}\n\
             http {{ access_log {dir}/access.log; client_body_temp_path {dir}/1; proxy_temp_path {dir}/2;\n\
             fastcgi_temp_path {dir}/3; uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;\n\
             server {{ listen 127.0.0.1:{port};\n location /tls/ {{ proxy_pass {http}{to}; }}\n\
             location / {{ return 404; }} }} }}\n"
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, configuration).expect("a configuration");
        let process = Command::new("nginx")
            .arg("-p")
            .arg(directory.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Self {
            process,
            _directory: directory,
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.process.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

fn decides_below_a_path(keeps_path: bool) {
    let port = free_port();
    let base = format!("http://127.0.0.1:{port}/tls");
    let stage = Stage::configured(&[
        ("link", "base_url", &format!("\"{base}/\"")),
        ("limits", "first", "1"),
    ]);
    let _nginx = Nginx::start(port, stage.sandbox.http(), keeps_path);
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "contract");
    assert!(link.starts_with(&format!("{base}/c/")), "{link}");
    for (path, status, holds) in [
        ("", 200, "<h1>"),
        ("style.css", 200, "color-scheme"),
        ("healthz", 200, "ok"),
        ("c/AbCdEf0123456789-_", 404, "/tls/style.css"),
    ] {
        let answer = stage.get(&format!("{base}/{path}"));
        assert_eq!(answer.status, status, "{path}");
        let body = answer.body.replace("&#x2f;", "/");
        assert!(body.contains(holds), "{path}: {body}");
    }
    // A form that says nothing leads back to its page.
    let refused = stage.post(&link, "nonsense=1");
    let path = link.split_once("127.0.0.1").expect("a link").1;
    let path = &path[path.find('/').expect("a path")..];
    assert!(
        refused
            .body
            .replace("&#x2f;", "/")
            .contains(&format!("href=\"{path}\"")),
        "{}",
        refused.body
    );

    if let Some(sender) = Sender::new() {
        sender.open(&format!("{link}?choice=send"));
        sender.decides("send");
        sender.is_told("Handed over for delivery");
        sender.clicks("main a");
        assert!(sender.reads("h1").contains("nothing left to decide"));
    } else {
        assert_eq!(stage.post(&link, "action=send").status, 200);
    }
    assert!(stage.arrival("bob@plain.test").contains("body of contract"));
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "released");

    // The page with all messages of a sender, and from there to one of them.
    for (to, subject) in [("eve@plain.test", "second"), ("dan@plain.test", "third")] {
        stage.send(&[to], subject);
        stage.hears_of(to);
    }
    stage.minutes_pass(11);
    let digest = stage.mail("Not sent yet: 2 messages");
    let inbox = digest.link("/s/");
    assert!(inbox.starts_with(&format!("{base}/s/")), "{inbox}");
    let page = stage.get(&inbox).body.replace("&#x2f;", "/");
    assert_eq!(page.matches("href=\"/tls/c/").count(), 2, "{page}");
    assert!(!page.contains("\"/c/") && !page.contains("\"/s/") && !page.contains("\"/style"));
    let done = stage.post(&inbox, "action=delete&seen=99999999999999&all=yes");
    let body = done.body.replace("&#x2f;", "/");
    assert!(
        body.contains("\"/tls/s/") && !body.contains("\"/s/"),
        "{body}"
    );
}

#[test]
fn a_proxy_may_pass_the_path_on() {
    decides_below_a_path(true);
}

#[test]
fn a_proxy_may_take_the_path_off() {
    decides_below_a_path(false);
}
