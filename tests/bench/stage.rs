//! A sandbox made for measuring: a quick server for notifications, no limits that would keep one back, quiet logs.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use posttls::sandbox::UpOptions;

use crate::common::{PATIENCE, Stage};

/// `smtp-sink`, which comes with Postfix: takes every mail and throws it away. Ends with this value.
pub struct Sink {
    /// On 127.0.0.1.
    pub port: u16,
    process: Child,
}

impl Sink {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let process = Command::new("smtp-sink")
            .args(["-u", "nobody", &format!("127.0.0.1:{port}"), "1000"])
            .stdin(Stdio::null())
            .spawn()
            .expect("smtp-sink");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "smtp-sink does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { port, process }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A sandbox whose notifications go to `sink`.
pub fn with_sink(sink: &Sink, change: impl FnOnce(UpOptions) -> UpOptions) -> Stage {
    let stage = Stage::with(|options| change(options.mx_dialogue(false)));
    stage.configure("notification", "smtp_port", &sink.port.to_string());
    stage.configure("limits", "per_hour", "1000000");
    if stage.sandbox.httpd_pid().is_some() {
        // The courier, too.
        stage.sandbox.stop_httpd();
        stage.sandbox.start_httpd(&[]).expect("it starts");
    }
    stage
}

/// A queue ID that nobody has, with so many digits: eleven or twelve, as inode numbers have it.
pub fn queue_id(number: u64, digits: usize) -> String {
    // The first digits choose the directory: they differ from one to the next, as microseconds do.
    let microseconds = number.wrapping_mul(7_919) % 1_000_000;
    let mut id = format!("{microseconds:05X}{:06X}", 0xF0_0000 + number % 0xF_0000);
    while id.len() < digits {
        id.push('0');
    }
    id.truncate(digits);
    id
}
