//! Answers the hook's questions about what Postfix's words do not tell ([`crate::standing`]), and the ear's about locks.
//!
//! The socket is apart from the control socket: whoever may ask here can make the mover look things up, and nothing else.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::{error, warn};
use rustix::net::sockopt::socket_peercred;

use super::Engine;
use super::control::{ControlError, Lock};
use super::source;
use super::ways::Envelope;
use crate::address::Address;
use crate::standing::wire::{self, Answer, Locked, MOST, Question, RECIPIENTS, Request, Told};
use crate::standing::{Standing, locks};
use crate::web::protocol::{receive, send};

/// How long one who asks may be silent, or not take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Conversations at the same time; who comes then is told nothing, and the sweep judges what it records.
const AT_ONCE: usize = 64;

/// Answers in threads of its own. `store` belongs to the user who may ask.
///
/// # Errors
/// When the socket can't be made.
pub fn serve(
    run_dir: &Path,
    store: &Path,
    engine: &Arc<Engine>,
    _lock: &Lock,
) -> Result<(), ControlError> {
    let path = wire::socket(run_dir);
    let fault = |path: &Path, doing| {
        let path = path.to_owned();
        move |source| ControlError::File {
            path,
            doing,
            source,
        }
    };
    let user = fs::metadata(store)
        .map_err(fault(store, "find the owner of"))?
        .uid();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(fault(&path, "remove")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(fault(&path, "listen at"))?;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(fault(&path, "close"))?;
    chown(&path, Some(user), None).map_err(fault(&path, "give away"))?;
    let engine = Arc::clone(engine);
    let busy = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        // The first one who asks is not to wait for postconf.
        if let Ok(pair) = engine.pair() {
            engine.ways().prepare(&pair.encrypt);
        }
        for connection in listener.incoming() {
            match connection {
                Ok(stream) => {
                    if busy.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
                        busy.fetch_sub(1, Ordering::Relaxed);
                        engine.owes_judgement();
                        continue;
                    }
                    let (engine, busy) = (Arc::clone(&engine), Arc::clone(&busy));
                    thread::spawn(move || {
                        if let Err(error) = converse(&stream, user, &engine) {
                            warn!("standing socket: {error}");
                        }
                        busy.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                Err(error) => {
                    error!("standing socket: {error}");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    });
    Ok(())
}

fn converse(stream: &UnixStream, user: u32, engine: &Engine) -> io::Result<()> {
    let peer = socket_peercred(stream)?.uid.as_raw();
    if peer != user && peer != 0 {
        return Err(io::Error::other(format!("user {peer} may not ask")));
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    while let Some(request) = receive::<Request>(stream, MOST)? {
        let question = match request {
            Request::Standings(question) => question,
            Request::Locks(process) => {
                let inodes = locks::messages_of(process);
                send(stream, &Locked { inodes }, MOST)?;
                continue;
            }
        };
        if question.recipients.len() > RECIPIENTS {
            return Err(io::Error::other("more recipients than may be asked about"));
        }
        let asked = Instant::now();
        let recipients = answer(&question, engine);
        let is_unknown = |one: &Told| matches!(one.standing, Standing::Unknown(_));
        if asked.elapsed() >= wire::PATIENCE || recipients.iter().any(is_unknown) {
            engine.owes_judgement();
        }
        if let Err(error) = send(stream, &Answer { recipients }, MOST) {
            engine.owes_judgement();
            return Err(error);
        }
    }
    Ok(())
}

fn answer(question: &Question, engine: &Engine) -> Vec<Told> {
    let all = |why: String| {
        let recipients = question.recipients.iter();
        recipients.map(|one| Told::unknown(one, &why)).collect()
    };
    let pair = match engine.pair() {
        Ok(pair) => pair,
        Err(error) => return all(error.to_string()),
    };
    let source = match source::sight(&pair.encrypt, &question.key) {
        Ok((_, Some(source))) => source,
        Ok((_, None)) => return all("the message is no longer in the queue".to_owned()),
        Err(error) => return all(error.to_string()),
    };
    let envelope = Envelope::from(&source.content);
    let sender = question.key.sender.as_ref().map_or("", Address::as_str);
    let told = question.recipients.iter().map(|one| {
        let address = source::named(&source.content, &one.address);
        let host = one.host.as_ref();
        let standing = engine
            .ways()
            .standing(&pair.encrypt, &envelope, sender, &address, host);
        Told { address, standing }
    });
    told.collect()
}
