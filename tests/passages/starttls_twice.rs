//! A mail server that offers STARTTLS again within TLS.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub struct Server {
    pub port: u16,
    messages: Arc<AtomicUsize>,
}

impl Server {
    /// Listens on a free port, with the key of the mx in this directory.
    pub fn start(mx: &Path) -> Self {
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
        let server = Self {
            port: listener.local_addr().expect("an address").port(),
            messages: Arc::default(),
        };
        let (config, messages) = (Arc::new(config), Arc::clone(&server.messages));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, messages) = (Arc::clone(&config), Arc::clone(&messages));
                let stream = stream.expect("a connection");
                thread::spawn(move || serve(stream, config, &messages));
            }
        });
        server
    }

    /// Messages that came over TLS; in plain text it takes none.
    pub fn over_tls(&self) -> usize {
        self.messages.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, config: Arc<ServerConfig>, messages: &AtomicUsize) {
    let _ = stream.write_all(b"220 again.test ESMTP\r\n");
    if !talk(&mut stream, None) {
        return;
    }
    let session = ServerConnection::new(config).expect("a session");
    talk(&mut StreamOwned::new(session, stream), Some(messages));
}

/// Until the client says STARTTLS (true) or hangs up. Without a place to count them it takes no messages.
fn talk(stream: &mut (impl Read + Write), messages: Option<&AtomicUsize>) -> bool {
    // What stands in the buffer is never more than one command: nothing here is said to allow more.
    let mut reader = BufReader::with_capacity(1, stream);
    let mut line = String::new();
    let mut data = false;
    loop {
        line.clear();
        if !reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            return false;
        }
        let verb = line.trim_end().to_ascii_uppercase();
        let answer = match (verb.split(' ').next().unwrap_or_default(), data) {
            (".", true) => {
                data = false;
                if let Some(messages) = messages {
                    messages.fetch_add(1, Ordering::SeqCst);
                }
                "250 2.0.0 Ok"
            }
            (_, true) => continue,
            ("EHLO", _) => "250-again.test\r\n250-8BITMIME\r\n250 STARTTLS",
            ("STARTTLS", _) => "220 2.0.0 Ready to start TLS",
            ("MAIL" | "RCPT", _) if messages.is_none() => "530 5.7.0 TLS first",
            ("DATA", _) => {
                data = true;
                "354 Go on"
            }
            ("QUIT", _) => "221 2.0.0 Bye",
            _ => "250 2.0.0 Ok",
        };
        if reader
            .get_mut()
            .write_all(format!("{answer}\r\n").as_bytes())
            .is_err()
        {
            return false;
        }
        if answer.starts_with("220") {
            return true;
        }
    }
}
