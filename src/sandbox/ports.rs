//! The ports of a sandbox, and the domains behind those of the mx.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketType};

use super::SandboxError;

/// What the mx does for a domain.
pub(super) struct Domain {
    /// The domain.
    pub name: &'static str,
    /// One line for people.
    pub what: &'static str,
    /// smtpd options in master.cf, one setting each; `@DIR@` is the mx's configuration directory.
    pub smtpd: &'static [&'static str],
}

const TLS: &str = "smtpd_tls_security_level=may";

/// Every domain has a port, and so a next hop, of its own: Postfix suspends next hops, and one domain's failures must
/// not touch another's mail.
pub(super) const DOMAINS: &[Domain] = &[
    Domain {
        name: "plain.test",
        what: "does not offer STARTTLS",
        smtpd: &[],
    },
    Domain {
        name: "tls.test",
        what: "takes mail over TLS; a few recipients are refused",
        smtpd: &[TLS],
    },
    Domain {
        name: "refuse.test",
        what: "offers STARTTLS, answers it with 454",
        smtpd: &[
            TLS,
            "smtpd_command_filter=regexp:@DIR@/refuse-454",
            "smtpd_delay_reject=no",
        ],
    },
    Domain {
        name: "refuse5.test",
        what: "offers STARTTLS, answers it with 554",
        smtpd: &[
            TLS,
            "smtpd_command_filter=regexp:@DIR@/refuse-554",
            "smtpd_delay_reject=no",
        ],
    },
    Domain {
        name: "broken.test",
        what: "offers STARTTLS, then the handshake fails",
        // A key of one kind and ciphers of another only: no handshake can succeed.
        smtpd: &[
            TLS,
            "smtpd_tls_protocols=TLSv1.2",
            "smtpd_tls_exclude_ciphers=aECDSA, aNULL",
        ],
    },
    Domain {
        name: "cert.test",
        what: "takes mail over TLS; a policy of the encrypt instance demands a trusted certificate, and this one is not",
        smtpd: &[TLS, "smtpd_tls_chain_files=@DIR@/other.pem"],
    },
    Domain {
        name: "slow.test",
        what: "takes mail over TLS, six seconds each",
        smtpd: &[TLS, "smtpd_end_of_data_restrictions=sleep 6"],
    },
    Domain {
        name: "slowplain.test",
        what: "does not offer STARTTLS, six seconds each",
        smtpd: &["smtpd_end_of_data_restrictions=sleep 6"],
    },
    Domain {
        name: "nodsn.test",
        what: "takes mail over TLS, does not offer DSN",
        smtpd: &[TLS, "smtpd_discard_ehlo_keywords=dsn"],
    },
    Domain {
        name: "sender.test",
        what: "where the senders are: takes mail over TLS into one inbox",
        smtpd: &[TLS],
    },
];

/// Nobody listens at this domain's port (tcpmux, reserved since 1988).
pub(super) const DOWN: (&str, u16) = ("down.test", 1);

/// Ports on 127.0.0.1.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    pub encrypt: u16,
    pub may: u16,
    pub http: u16,
    pub domains: BTreeMap<&'static str, u16>,
    /// Bound and never listening. Postfix binds with SO_REUSEPORT (from 3.6 on), so two sandboxes that had found the same
    /// port would both get it, and each a part of the other's mail; as long as these live, nobody else finds it, not even
    /// while an instance is stopped.
    pub reserved: Arc<Vec<OwnedFd>>,
}

/// A socket on a free port of 127.0.0.1. With SO_REUSEADDR, as every Postfix has it, the port can be shared with sockets
/// that do not listen: so Postfix gets it, and nobody who looks for a free one.
fn reserve() -> std::io::Result<(OwnedFd, u16)> {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address: SocketAddr = net::getsockname(&socket)?.try_into()?;
    Ok((socket, address.port()))
}

/// A free port below those that the kernel gives to outgoing connections: it is free again while posttls-httpd is stopped.
fn rarely_taken() -> std::io::Result<u16> {
    for _ in 0..100 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let port = 10_000 + u16::from_ne_bytes(random) % 22_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}

impl Ports {
    /// Finds free ports, all different, and reserves those of Postfix. That of posttls-httpd, which shares with nobody,
    /// is free again on return.
    pub fn find() -> std::io::Result<Self> {
        let mut reserved = Vec::new();
        let mut next = || {
            let (socket, port) = reserve()?;
            reserved.push(socket);
            std::io::Result::Ok(port)
        };
        let mut domains = BTreeMap::new();
        for domain in DOMAINS {
            domains.insert(domain.name, next()?);
        }
        domains.insert(DOWN.0, DOWN.1);
        let (encrypt, may) = (next()?, next()?);
        let http = rarely_taken()?;
        let reserved = Arc::new(reserved);
        Ok(Self {
            encrypt,
            may,
            http,
            domains,
            reserved,
        })
    }

    /// The transport table of encrypt and may.
    pub fn transport_table(&self) -> String {
        let mut table: String = self
            .domains
            .iter()
            .map(|(domain, port)| format!("{domain} smtp:[127.0.0.1]:{port}\n"))
            .collect();
        table.push_str("* error:5.1.2 this domain is not part of the sandbox\n");
        table
    }

    /// Whether the SMTP server at `port` is ours: its greeting has our `nonce`.
    pub fn check(port: u16, nonce: &str) -> Result<(), SandboxError> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let greeting = TcpStream::connect_timeout(&address, Duration::from_secs(5)).and_then(|s| {
            s.set_read_timeout(Some(Duration::from_secs(20)))?;
            let mut line = String::new();
            BufReader::new(s).read_line(&mut line)?;
            Ok(line)
        });
        match greeting {
            Ok(line) if line.contains(nonce) => Ok(()),
            _ => Err(SandboxError::PortLost(port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Postfix listens (inet_listen.c): before 3.6 without SO_REUSEPORT.
    fn listen(port: u16, reuseport: bool) -> std::io::Result<OwnedFd> {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        net::sockopt::set_socket_reuseaddr(&socket, true)?;
        if reuseport {
            net::sockopt::set_socket_reuseport(&socket, true)?;
        }
        net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        net::listen(&socket, 1)?;
        Ok(socket)
    }

    #[test]
    fn postfix_of_any_version_gets_a_reserved_port_and_nobody_else_finds_it() {
        let (_kept, port) = reserve().unwrap();
        for reuseport in [false, true] {
            drop(listen(port, reuseport).unwrap());
        }
        let others: Vec<_> = (0..200).map(|_| reserve().unwrap()).collect();
        assert!(others.iter().all(|(_, other)| *other != port));
        let found = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_ne!(found.local_addr().unwrap().port(), port);
    }
}
