//! A web child that was taken over: it says to the real mover whatever it likes.
//!
//! The mover's parts run in this process, on the queues and the store of a sandbox. The child that they start is a relay
//! (shut in, as the mover insists), so that the test writes what the mover reads.

use std::fs::{self, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use posttls::case::store::Store;
use posttls::case::{CaseId, ConsentId};
use posttls::link::Keys;
use posttls::mover::{Desk, Engine, Supervisor};
use posttls::postfix::{Instance, user};
use posttls::sandbox::Instance as Which;
use posttls::web::privilege::{prove_unprivileged, shut_in};
use posttls::web::protocol::*;

use crate::common::{PATIENCE, Stage};
use crate::this_program;

const RELAY: &str = "POSTTLS_TEST_RELAY";

/// Runs as the mover's child: joins the mover's stream with the test's socket, in both directions.
#[test]
fn relay() {
    let Some(path) = std::env::var_os(RELAY) else {
        return;
    };
    let test = UnixStream::connect(path).expect("the test");
    prove_unprivileged(&[]).expect("no privilege");
    shut_in().expect("shut in");
    let (mut from_test, mut to_test) = (test.try_clone().expect("a socket"), test);
    let mover = || -> UnixStream {
        let input = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned();
        input.expect("a socket").into()
    };
    let (mut from_mover, mut to_mover) = (mover(), mover());
    let asking = thread::spawn(move || {
        let _ = io::copy(&mut from_test, &mut to_mover);
        let _ = to_mover.shutdown(std::net::Shutdown::Both);
    });
    let _ = io::copy(&mut from_mover, &mut to_test);
    let _ = to_test.shutdown(std::net::Shutdown::Both);
    asking.join().expect("it ends");
}

/// A mover whose web children are all taken over.
struct Taken {
    stage: Stage,
    relays: UnixListener,
    supervisor: Arc<Supervisor>,
    serving: Option<JoinHandle<()>>,
}

impl Taken {
    /// Stops the posttls-httpd of the stage, and takes its place. Also: the first child's stream.
    fn over(stage: Stage) -> (Self, Stream) {
        stage.sandbox.stop_httpd();
        let path = stage.dir().join("relay.sock");
        let relays = UnixListener::bind(&path).expect("a socket");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("a mode");
        let supervisor = Arc::new(supervisor(&stage, child(&stage, &path)));
        let running = Arc::clone(&supervisor);
        let (ready, started) = sync_channel(1);
        let serving = thread::spawn(move || running.run(&ready));
        let taken = Self {
            stage,
            relays,
            supervisor,
            serving: Some(serving),
        };
        let stream = taken.next_child();
        started
            .recv_timeout(PATIENCE)
            .expect("the mover believes it");
        (taken, stream)
    }

    /// The stream of the next child, after its greeting.
    fn next_child(&self) -> Stream {
        let mut stream = self.next_silent();
        stream.say(0, Question::Ready);
        stream
    }

    fn next_silent(&self) -> Stream {
        let (stream, _) = self.relays.accept().expect("a child");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut stream = Stream(stream);
        let welcome = stream.hear().expect("a word").body;
        assert!(matches!(welcome, Answer::Welcome(_)), "{welcome:?}");
        stream
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.supervisor.end();
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// A mover's desk on the queues and the store of a stage, for children of this program.
fn supervisor(stage: &Stage, program: PathBuf) -> Supervisor {
    let config = stage.config();
    let store = Arc::new(Store::open(&config.store.path, true).expect("a store"));
    let instance = |which| Instance::load(&stage.sandbox.config_dir(which)).expect("an instance");
    let (encrypt, may) = (instance(Which::Encrypt), instance(Which::May));
    let engine = Arc::new(Engine::new(
        Arc::clone(&store),
        encrypt,
        may,
        &["127.0.0.1".to_owned()],
    ));
    let keys = Keys::load(&config.link.key_file).expect("a key");
    let desk = Arc::new(Desk::new(store, engine, keys, &config));
    let settings = Settings {
        admin_contact: "postmaster@sender.test".to_owned(),
        base_path: String::new(),
        trusted_proxies: Vec::new(),
        templates: Default::default(),
    };
    let user = user::lookup(&config.http.web_user).expect("a user");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    Supervisor::new(program, user, listener, Vec::new(), settings, &desk, 2)
}

/// The program that the mover starts: this one, in its other role.
fn child(stage: &Stage, socket: &std::path::Path) -> PathBuf {
    let program = this_program(stage.dir());
    let script = stage.dir().join("taken-over");
    let text = format!(
        "#!/bin/sh\nexec /usr/bin/env {RELAY}={} {} --exact web_child::relay --nocapture >&2\n",
        socket.display(),
        program.display()
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a mode");
    script
}

struct Stream(UnixStream);

impl Stream {
    fn say(&mut self, number: u64, body: Question) {
        send(&self.0, &Numbered { number, body }, usize::MAX).expect("the relay listens");
    }

    fn hear(&mut self) -> Option<Numbered<Answer>> {
        receive(&self.0, MAX_ANSWER).expect("an answer")
    }

    fn ask(&mut self, question: Question) -> Answer {
        self.say(7, question);
        let answer = self.hear().expect("an answer");
        assert_eq!(answer.number, 7);
        answer.body
    }

    /// The mover has hung up without an answer.
    fn hangs_up(mut self) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = self.0.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

/// Every question there is about this token, with every action.
fn questions(token: &str, victim: CaseId, address: &str) -> Vec<Question> {
    let (token, client) = (token.to_owned(), Ipv4Addr::LOCALHOST.into());
    let mut all = vec![
        Question::Show {
            token: token.clone(),
        },
        Question::ShowSender {
            token: token.clone(),
            page: 1,
        },
        Question::ShowConsent {
            token: token.clone(),
        },
        Question::EndConsent {
            token: token.clone(),
            client,
        },
    ];
    for action in [Action::Send, Action::Delete, Action::Keep] {
        let remember = (action == Action::Send).then_some(Remember {
            scope: Scope::Domain,
            days: 30,
        });
        let same = |recipients| Decision::Same {
            action,
            recipients,
            remember,
            seen: i64::MAX,
        };
        let each = Decision::Each {
            choices: vec![(1, action)],
            remember: None,
            seen: i64::MAX,
        };
        for decision in [same(Vec::new()), same(vec![address.to_owned()]), each] {
            all.push(Question::Decide {
                token: token.clone(),
                decision,
                client,
            });
        }
        let each = InboxDecision::Each {
            choices: vec![(victim.0, 1, action)],
            seen: vec![(victim.0, i64::MAX)],
        };
        let every = InboxDecision::All {
            action,
            seen: i64::MAX,
            domain: None,
        };
        for decision in [each, every] {
            all.push(Question::DecideSender {
                token: token.clone(),
                decision,
                client,
            });
        }
    }
    all
}

#[test]
fn it_cannot_touch_a_case_whose_token_it_never_saw() {
    let stage = Stage::new();
    stage.configure("remember", "days", "30");
    let victim = stage.stuck_from("alice@sender.test", &["bob@plain.test"], "victim");
    let other = stage.stuck_from("eve@sender.test", &["bob@plain.test"], "other");
    stage.wait("the note that its sender was told", || {
        let events = stage.case(&victim)["events"].clone();
        let mut events = events.as_array()?.iter();
        events
            .any(|event| event["what"] == "notified")
            .then_some(())
    });
    let (before, id) = (stage.case(&victim), stage.known(&victim).id);
    let mine = stage.token(stage.known(&other).id, 3600);
    let eve = "eve@sender.test".parse().expect("an address");
    let own_sender = stage.token(stage.store().sender_id(&eve).expect("a number"), 3600);
    let expired = stage.token(id, -1);
    let another_kind = stage.token(ConsentId(id.0), 3600);
    let (taken, mut stream) = Taken::over(stage);
    let stage = &taken.stage;

    let mut tokens = vec![
        String::new(),
        id.to_string(),
        "0".repeat(52),
        victim.clone(),
        format!("' OR id = {id} --"),
        "../".repeat(30),
        "A".repeat(400_000),
        expired,
        another_kind,
    ];
    // Its own, with the victim's number in it: at every place of the signature something else.
    let changed = |at: usize| {
        let mut token = mine.clone().into_bytes();
        token[at] = if token[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(token).expect("text")
    };
    tokens.extend((0..mine.len()).step_by(5).map(changed));
    for token in &tokens {
        for question in questions(token, id, "bob@plain.test") {
            let answer = stream.ask(question.clone());
            assert!(
                matches!(
                    answer,
                    Answer::Unknown | Answer::Expired | Answer::Refused { .. }
                ),
                "{question:?}: {answer:?}"
            );
        }
    }
    // Genuine tokens of somebody else open what is somebody else's, and no more. "keep", so that there is something left.
    for token in [&mine, &own_sender] {
        let asked = questions(token, id, "bob@plain.test").into_iter();
        for question in asked.filter(|question| !format!("{question:?}").contains("All")) {
            let answer = format!("{:?}", stream.ask(question));
            assert!(
                !answer.contains(&victim) && !answer.contains("alice@"),
                "{answer}"
            );
        }
    }
    assert_eq!(stage.case(&victim), before);
    assert_eq!(stage.pending(&victim), ["bob@plain.test"]);
    assert!(
        stage
            .store()
            .consents(true)
            .expect("consents")
            .iter()
            .all(|one| one.sender == eve)
    );
    stage.in_queue(&victim, "deferred");
}

#[test]
fn what_is_no_question_ends_it_and_the_next_child_is_answered() {
    let (taken, first) = Taken::over(Stage::new());
    let frame = |text: &str| {
        let mut frame = (text.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(text.as_bytes());
        frame
    };
    let order = r#"{"case":1,"action":"send","recipients":[],"by":"root"}"#;
    let babble: Vec<Vec<u8>> = vec![
        u32::MAX.to_be_bytes().to_vec(),
        ((MAX_QUESTION + 1) as u32).to_be_bytes().to_vec(),
        frame(""),
        frame("null"),
        frame(order),
        frame(r#"{"ping":true}"#),
        frame(r#"{"number":1,"body":{"ask":"decide","token":"x"}}"#),
        frame(r#"{"number":-1,"body":{"ask":"health"}}"#),
        frame(r#"{"number":1,"body":{"answer":"healthy"}}"#),
        frame(&"[".repeat(100_000)),
        // Ready a second time.
        frame(r#"{"number":0,"body":{"ask":"ready"}}"#),
        frame("\u{0}\u{1}\u{2}"),
    ];
    let mut stream = first;
    for octets in babble {
        stream.0.write_all(&octets).expect("the relay listens");
        stream.hangs_up();
        stream = taken.next_child();
        assert!(matches!(stream.ask(Question::Health), Answer::Healthy));
    }
    drop(stream);
    // A question before it has said that it is ready, and shut in.
    let mut early = taken.next_silent();
    early.say(1, Question::Health);
    early.hangs_up();
    let mut last = taken.next_child();
    assert!(matches!(last.ask(Question::Health), Answer::Healthy));
    // The same number twice is two questions.
    for _ in 0..2 {
        last.say(1, Question::Health);
    }
    for _ in 0..2 {
        assert_eq!(last.hear().expect("an answer").number, 1);
    }
    a_flood_costs_the_mover_no_memory(&taken, last);
}

fn a_flood_costs_the_mover_no_memory(taken: &Taken, stream: Stream) {
    let before = resident();
    // Nobody reads the answers, and the token is as long as a message may be.
    let question = Numbered {
        number: 1,
        body: Question::Show {
            token: "A".repeat(MAX_QUESTION - 200),
        },
    };
    stream
        .0
        .set_write_timeout(Some(Duration::from_millis(500)))
        .expect("a limit");
    let mut sent = 0;
    while sent < 300 && send(&stream.0, &question, MAX_QUESTION).is_ok() {
        sent += 1;
    }
    let grown = resident().saturating_sub(before);
    println!(
        "{sent} questions of half a megabyte, {} MB more resident",
        grown >> 20
    );
    assert!(sent > 256);
    // As many as may wait for a free worker, and as many as are answered.
    assert!(grown < 300 << 20, "{grown}");
    drop(stream);
    let mut next = taken.next_child();
    assert!(matches!(next.ask(Question::Health), Answer::Healthy));
}

/// Octets of this process that are in memory.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("a figure");
    let pages = pages
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

/// A program like any other that says that it is ready: without the fence the mover does not serve it.
#[test]
fn one_that_has_not_shut_itself_in_is_not_answered() {
    let stage = Stage::with(|options| options.httpd(false));
    let script = stage.dir().join("open");
    let ready = r#"{"number":0,"body":{"ask":"ready"}}"#;
    assert_eq!(ready.len(), 0o43);
    let text =
        format!("#!/bin/sh\nprintf '\\000\\000\\000\\043%s' '{ready}' >&0\nexec sleep 60 >&2\n");
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a mode");
    let supervisor = supervisor(&stage, script);
    let (ready, started) = sync_channel(1);
    // It gives up at the first child that does not prove itself.
    supervisor.run(&ready);
    assert!(started.try_recv().is_err());
}
