//! A mail server of our own that does something odd about STARTTLS.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What it does.
#[allow(dead_code, reason = "each test program needs some of them")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// Hangs up at the first EHLO.
    HangsUpAtOnce,
    /// Hangs up at the command STARTTLS.
    HangsUpAtCommand,
    /// Hangs up behind its 220 to that.
    HangsUpAfterReady,
    /// Hangs up at the first octets of the handshake.
    HangsUpAtHello,
    /// Hangs up when the handshake is done, at the EHLO within TLS.
    HangsUpAfterHandshake,
    /// Offers STARTTLS again within TLS, and takes mail there only.
    OffersAgain,
}

/// The server. Those that hang up take mail in plain text.
pub struct Server {
    pub port: u16,
    messages: Arc<AtomicUsize>,
}

impl Server {
    /// Listens on a free port, with the key of the mx in this directory.
    pub fn start(mx: &Path, odd: Odd) -> Self {
        let certificate =
            CertificateDer::from_pem_file(mx.join("tls-cert.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(mx.join("tls-key.pem")).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(vec![certificate], key)
            })
            .expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let messages = Arc::<AtomicUsize>::default();
        let (config, taken) = (Arc::new(config), Arc::clone(&messages));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, taken) = (Arc::clone(&config), Arc::clone(&taken));
                thread::spawn(move || serve(stream, odd, config, &taken));
            }
        });
        Self { port, messages }
    }

    /// Messages that it took.
    pub fn taken(&self) -> usize {
        self.messages.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: TcpStream,
    odd: Odd,
    config: Arc<ServerConfig>,
    messages: &AtomicUsize,
) -> Option<()> {
    stream.write_all(b"220 odd.test ESMTP\r\n").ok()?;
    let in_clear = (odd != Odd::OffersAgain).then_some(messages);
    talk(&mut stream, odd == Odd::HangsUpAtOnce, in_clear)?;
    if odd == Odd::HangsUpAtCommand {
        return None;
    }
    stream.write_all(b"220 2.0.0 Ready to start TLS\r\n").ok()?;
    let session = |stream| {
        Some(StreamOwned::new(
            ServerConnection::new(config).ok()?,
            stream,
        ))
    };
    match odd {
        Odd::HangsUpAtOnce | Odd::HangsUpAtCommand | Odd::HangsUpAfterReady => None,
        Odd::HangsUpAtHello => stream.read_exact(&mut [0; 16]).ok(),
        Odd::HangsUpAfterHandshake => session(stream)?.read_exact(&mut [0; 4]).ok(),
        Odd::OffersAgain => talk(&mut session(stream)?, false, Some(messages)),
    }
}

/// Until the client says STARTTLS; `None` when one of them hangs up before. Without a place to count them it takes no
/// messages.
fn talk(
    stream: &mut (impl Read + Write),
    hangs_up: bool,
    messages: Option<&AtomicUsize>,
) -> Option<()> {
    // Nothing is read ahead: what comes behind STARTTLS is the handshake's.
    let mut reader = BufReader::with_capacity(1, stream);
    let mut data = false;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_uppercase();
        let answer = match (line.split(' ').next().unwrap_or_default(), data) {
            (".", true) => {
                data = false;
                messages.map(|count| count.fetch_add(1, Ordering::SeqCst));
                "250 2.0.0 Ok"
            }
            (_, true) => continue,
            ("EHLO", _) if hangs_up => return None,
            ("EHLO", _) => "250-odd.test\r\n250-8BITMIME\r\n250 STARTTLS",
            ("STARTTLS", _) => return Some(()),
            ("MAIL" | "RCPT", _) if messages.is_none() => "530 5.7.0 TLS first",
            ("DATA", _) => {
                data = true;
                "354 Go on"
            }
            ("QUIT", _) => "221 2.0.0 Bye",
            _ => "250 2.0.0 Ok",
        };
        let answer = format!("{answer}\r\n");
        reader.get_mut().write_all(answer.as_bytes()).ok()?;
        reader.get_mut().flush().ok()?;
    }
}
