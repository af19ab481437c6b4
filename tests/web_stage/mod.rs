//! A web child in a thread of this process or in one of its own, and a mover that answers by script and remembers what
//! it was asked.
#![allow(dead_code)]

#[path = "../common/programs.rs"]
mod programs;

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use posttls::case::Failure;
use posttls::web::child::{Sockets, WebError, run};
use posttls::web::protocol::*;

pub const TOKEN: &str = "AbCdEf0123456789-_";

/// How a form says that it is one.
pub const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// With one case of two recipients.
pub fn stage() -> Stage {
    Stage::usual(open_case(&["a@plain.test", "b@plain.test"]))
}

type Script = dyn FnMut(&Question) -> Option<Answer> + Send;

pub struct Stage {
    pub address: SocketAddr,
    /// All questions so far, without `Ready`.
    pub asked: Arc<Mutex<Vec<Question>>>,
    mover: UnixStream,
    child: Option<JoinHandle<Result<(), WebError>>>,
    process: Option<Child>,
    /// Where the process has its program: the build directory may be closed to others.
    _program: Option<tempfile::TempDir>,
}

impl Stage {
    /// `script` answers each question, or leaves it without an answer.
    pub fn with(script: impl FnMut(&Question) -> Option<Answer> + Send + 'static) -> Self {
        let (mover, child) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = Sockets::make().expect("sockets");
        let child = thread::spawn(move || run(child, listener, sockets));
        let asked = listen(&mover, script);
        Self {
            address,
            asked,
            mover,
            child: Some(child),
            process: None,
            _program: None,
        }
    }

    /// As [`Stage::usual`], with the web child as the mover starts it: a process of its own, and nobody.
    pub fn in_a_process(view: CaseView) -> Self {
        let (mover, child) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("posttls-httpd");
        programs::install(env!("CARGO_BIN_EXE_posttls-httpd"), &program);
        let mut process = Command::new(program)
            .arg("--web-child")
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .stdin(Stdio::from(OwnedFd::from(child)))
            .stdout(Stdio::from(OwnedFd::from(listener)))
            // It may not write files, and our standard error may be one.
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = process.stderr.take().unwrap();
        thread::spawn(move || std::io::copy(&mut words, &mut std::io::stderr()));
        let asked = listen(&mover, move |question| Some(usual(&view, question)));
        let stage = Self {
            address,
            asked,
            mover,
            child: None,
            process: Some(process),
            _program: Some(directory),
        };
        assert_eq!(stage.get("/healthz").status, 200);
        stage
    }

    /// The process of the web child.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// A mover that knows [`TOKEN`] and decides as asked.
    pub fn usual(view: CaseView) -> Self {
        Self::with(move |question| Some(usual(&view, question)))
    }

    pub fn url(&self) -> String {
        format!("http://{}/c/{TOKEN}", self.address)
    }

    pub fn send(&self, request: impl AsRef<[u8]>) -> Response {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        stream.write_all(request.as_ref()).unwrap();
        let mut octets = Vec::new();
        let _ = stream.read_to_end(&mut octets);
        Response::parse(&octets)
    }

    pub fn get(&self, target: &str) -> Response {
        self.request("GET", target, &[], "")
    }

    pub fn post(&self, body: &str) -> Response {
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        self.request("POST", &format!("/c/{TOKEN}"), &[form], body)
    }

    pub fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        self.send(request + "\r\n" + body)
    }

    pub fn decisions(&self) -> Vec<Decision> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter_map(|question| match question {
                Question::Decide { decision, .. } => Some(decision.clone()),
                _ => None,
            })
            .collect()
    }

    /// What the mover does to end the child; gives how the child ended.
    pub fn end(mut self) -> Result<(), WebError> {
        self.mover.shutdown(std::net::Shutdown::Both).unwrap();
        self.child.take().unwrap().join().unwrap()
    }

    /// Says something that is no message.
    pub fn babble(mut self) -> Result<(), WebError> {
        (&self.mover).write_all(&[0, 0, 0, 2, b'h', b'i']).unwrap();
        self.child.take().unwrap().join().unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.mover.shutdown(std::net::Shutdown::Both);
        if let Some(mut process) = self.process.take() {
            let status = process.wait().unwrap();
            assert!(thread::panicking() || status.success(), "{status}");
        }
    }
}

/// A mover that answers by script, in a thread of its own.
fn listen(
    mover: &UnixStream,
    script: impl FnMut(&Question) -> Option<Answer> + Send + 'static,
) -> Arc<Mutex<Vec<Question>>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (stream, notes) = (mover.try_clone().unwrap(), Arc::clone(&asked));
    thread::spawn(move || play(&stream, &notes, Box::new(script)));
    asked
}

fn play(stream: &UnixStream, notes: &Mutex<Vec<Question>>, mut script: Box<Script>) {
    while let Ok(Some(question)) = receive::<Numbered<Question>>(stream, MAX_QUESTION) {
        let Numbered { number, body } = question;
        let answer = if body == Question::Ready {
            assert_eq!(number, 0);
            Some(Answer::Welcome(Box::new(Settings {
                admin_contact: "helpdesk@sender.test".to_owned(),
                base_path: String::new(),
                trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
                templates: Default::default(),
            })))
        } else {
            notes.lock().unwrap().push(body.clone());
            script(&body)
        };
        if let Some(body) = answer {
            let _ = send(stream, &Numbered { number, body }, MAX_ANSWER);
        }
    }
}

fn usual(view: &CaseView, question: &Question) -> Answer {
    match question {
        Question::Health => Answer::Healthy,
        Question::Show { token } if token == TOKEN => Answer::Case(Box::new(view.clone())),
        Question::Decide {
            token, decision, ..
        } if token == TOKEN => {
            let mut view = view.clone();
            for recipient in view.recipients.iter_mut().filter(|r| r.open) {
                let action = match decision {
                    Decision::Same {
                        action, recipients, ..
                    } => (recipients.is_empty() || recipients.contains(&recipient.address))
                        .then_some(*action),
                    Decision::Each { choices, .. } => choices
                        .iter()
                        .find(|(n, _)| *n == recipient.number)
                        .map(|(_, action)| *action),
                };
                recipient.outcome = action.map(|action| match action {
                    Action::Send => Outcome::Released,
                    Action::Delete => Outcome::Deleted,
                    Action::Keep => Outcome::Kept,
                });
            }
            Answer::Decided(Box::new(view))
        }
        _ => Answer::Unknown,
    }
}

pub fn recipient(
    number: i64,
    address: &str,
    failure: Failure,
    state: RecipientState,
) -> RecipientView {
    RecipientView {
        number,
        address: address.to_owned(),
        name: address.to_owned(),
        failure,
        detail: "TLS is required, but was not offered by host mx.plain.test[192.0.2.7]".to_owned(),
        state,
        open: matches!(state, RecipientState::Open | RecipientState::Kept),
        domain: address
            .rsplit_once('@')
            .map(|(_, domain)| domain.to_owned())
            .unwrap_or_default(),
        passage: None,
        passage_detail: String::new(),
        may_send: true,
        may_remember: false,
        hindered: false,
        held: false,
        outcome: None,
    }
}

pub fn case(recipients: Vec<RecipientView>) -> CaseView {
    CaseView {
        queue_id: "4XyZ1234567".to_owned(),
        sender: "anna.writer@sender.test".to_owned(),
        subject: "Minutes of Tuesday’s meeting".to_owned(),
        arrived: moment(1_795_338_900),
        retry_until: Some(moment(1_795_770_900)),
        closed: None,
        held: false,
        seen: 17,
        recipients,
        remember: Vec::new(),
        remembered: Vec::new(),
    }
}

pub fn moment(seconds: i64) -> Moment {
    Moment {
        seconds,
        offset: 3600,
        zone: "CET".to_owned(),
    }
}

/// As many open recipients as there are addresses.
pub fn open_case(addresses: &[&str]) -> CaseView {
    let recipients = addresses.iter().zip(1..).map(|(address, number)| {
        recipient(number, address, Failure::NotOffered, RecipientState::Open)
    });
    case(recipients.collect())
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn parse(octets: &[u8]) -> Self {
        let text = String::from_utf8_lossy(octets);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .unwrap_or(0);
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self {
            status,
            headers,
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}
