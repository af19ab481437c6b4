//! Whose sockets listen at an address, by the kernel's own table (proc(5), /proc/net/tcp): what answers there can say that it
//! is anybody.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP_LISTEN of the kernel's enum, as the table has it.
const LISTENS: &str = "0A";

/// The users who made the sockets that listen there, or at every address with that port. Empty when there are none, or the
/// table can't be read.
pub(super) fn listeners(address: SocketAddr) -> Vec<u32> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| in_table(&table, address))
        .collect()
}

fn in_table(table: &str, wanted: SocketAddr) -> Vec<u32> {
    let user = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (address, port) = words.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let address = address_of(address)?;
        let there = address == wanted.ip().to_canonical() || address.is_unspecified();
        (port == wanted.port() && there && *words.get(3)? == LISTENS)
            .then(|| words.get(7)?.parse().ok())?
    };
    table.lines().skip(1).filter_map(user).collect()
}

/// An address in words of 32 bits, each in the order of this machine.
fn address_of(text: &str) -> Option<IpAddr> {
    let mut octets = Vec::new();
    for at in (0..text.len()).step_by(8) {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    if let Ok(octets) = <[u8; 4]>::try_from(octets.as_slice()) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(octets.as_slice()).ok()?;
    Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_table_is_read_and_nonsense_in_it_is_not() {
        let one = u32::from_ne_bytes([127, 0, 0, 1]);
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: {one:08X}:210C 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 1\n\
             1: {one:08X}:210C {one:08X}:1234 01 00000000:00000000 00:00000000 00000000  1002        0 2\n\
             2: 00000000:210C 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1003        0 3\n\
             3: {one:08X}:210D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1004        0 4\n\
             4: {one:08X} 0A\n5: \u{e4}:210C 0 0A 0 0 0 1005\n"
        );
        assert_eq!(
            in_table(&table, "127.0.0.1:8460".parse().unwrap()),
            [1001, 1003]
        );
        assert_eq!(in_table(&table, "127.0.0.2:8460".parse().unwrap()), [1003]);
    }

    #[test]
    fn our_own_are_found() {
        let own = rustix::process::geteuid().as_raw();
        for at in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            if let Ok(listener) = TcpListener::bind(at) {
                assert_eq!(listeners(listener.local_addr().unwrap()), [own]);
            }
        }
    }
}
