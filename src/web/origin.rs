//! Who counts as one client when strangers are limited: an IPv4 address, or an IPv6 network of 64 bits, which is the
//! least that a customer gets and so costs nothing to move about in. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// One client, as far as limits go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address => address,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_client_and_an_ipv4_address_is_one() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8:1:2::5"), origin("2001:db8:1:2:ffff::1"));
        assert_ne!(origin("2001:db8:1:2::5"), origin("2001:db8:1:3::5"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(origin("192.0.2.1"), origin("::ffff:192.0.2.1"));
        assert_eq!(origin("192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(origin("2001:db8:1:2::5").to_string(), "2001:db8:1:2::/64");
    }
}
