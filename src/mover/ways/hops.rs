//! Whose server was it? A hop of ours is no recipient's server: what fails there is for the admin to mend, and no sender is
//! asked about it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use super::tables::ANY_DOMAIN;
use super::{Stuck, parameter};
use crate::address::Address;
use crate::domain::Domain;
use crate::postfix::settings::list;
use crate::postfix::tls_policy::Level;
use crate::postfix::{Resolved, Service, Settings};
use crate::standing::Host;
use crate::text::readable;

impl Stuck<'_> {
    /// Is it a server of ours that it failed at? The setting that leads there, and what to do.
    pub(super) fn ours(&self, service: &Service, way: &Resolved) -> Result<Option<String>, String> {
        let (settings, host) = (self.settings, self.host);
        let hop = format!("{}:{}", way.transport, way.next_hop);
        if let Some(host) = host {
            let fallback = settings.for_service(service, &parameter(service, "fallback_relay"));
            if let Some(relay) = list(fallback)
                .into_iter()
                .find(|relay| is_host(relay, host))
            {
                return Ok(Some(format!(
                    "smtp_fallback_relay = {relay} is a relay of our own: turn TLS on there"
                )));
            }
        }
        if service.command == "lmtp" {
            return Ok(Some(format!(
                "{hop} is a server of our own: {}",
                advice(settings, service)
            )));
        }
        match self.own_setting(way)? {
            Some(Own::Relay(setting)) => {
                return Ok(Some(format!(
                    "{setting} is a relay of our own: turn TLS on there"
                )));
            }
            Some(Own::Hop(setting)) => {
                let advice = advice(settings, service);
                return Ok(Some(format!("{setting} is a hop of our own: {advice}")));
            }
            None => {}
        }
        if way.is_own_domain() {
            let which = if way.is_relay_domain() {
                "relay_domains"
            } else {
                "our own domains"
            };
            let advice = advice(settings, service);
            return Ok(Some(format!(
                "{} is in {which}, and {hop} a server of our own: {advice}",
                shown_domain(self.recipient)
            )));
        }
        let next_hop = destination(&way.next_hop);
        let address = next_hop.parse().ok().or(host.map(|host| host.address));
        let here = match address {
            Some(address) if is_here(address) => address,
            _ if next_hop.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST.into(),
            _ => return Ok(None),
        };
        let name = host.map_or(next_hop, |host| host.name.as_str());
        let names = [here.to_string(), next_hop.to_owned(), name.to_owned()];
        let is_named = |name: &String| self.remote.iter().any(|one| one.eq_ignore_ascii_case(name));
        if names.iter().any(is_named) {
            return Ok(None);
        }
        Ok(Some(format!(
            "{hop} leads to {here}, on this host: {}; if it is somebody else's server, name it in encrypt.remote_hosts",
            advice(settings, service)
        )))
    }

    /// The setting that leads to this next hop, if it is not the recipient's own domain. An entry of a transport table for
    /// this domain alone is none: it may well name the server of somebody else's domain.
    fn own_setting(&self, way: &Resolved) -> Result<Option<Own>, String> {
        let (settings, sender) = (self.settings, self.sender);
        if way.next_hop.is_empty() || way.next_hop.eq_ignore_ascii_case(&self.recipient.domain()) {
            return Ok(None);
        }
        if settings.get("relayhost") == way.next_hop {
            return Ok(Some(Own::Relay(format!("relayhost = {}", way.next_hop))));
        }
        let leads = |value: &str| {
            let (transport, hop) = value.split_once(':').unwrap_or((value, ""));
            hop == way.next_hop && (transport.is_empty() || transport == way.transport)
        };
        let parameters = [
            "relay_transport",
            "default_transport",
            "virtual_transport",
            "local_transport",
        ];
        if let Some(name) = parameters.iter().find(|name| leads(settings.get(name))) {
            return Ok(Some(Own::Hop(format!("{name} = {}", settings.get(name)))));
        }
        let domain = sender
            .rsplit_once('@')
            .map(|(_, domain)| format!("@{domain}"));
        let keys = [
            Some(sender.to_owned()).filter(|sender| !sender.is_empty()),
            domain,
        ];
        for name in [
            "sender_dependent_relayhost_maps",
            "sender_dependent_default_transport_maps",
        ] {
            let tables = settings.get(name);
            for key in keys.iter().flatten().filter(|_| !tables.is_empty()) {
                let found = self.tables.look_up(settings, tables, key)?;
                if found.is_some_and(|value| value == way.next_hop || leads(&value)) {
                    return Ok(Some(Own::Relay(format!(
                        "{name} ({key}: {})",
                        way.next_hop
                    ))));
                }
            }
        }
        // Also where a transport table has an entry for all: what takes anybody's mail is not this recipient's server.
        let anybody = self.tables.route_of_anybody(settings, sender)?;
        if anybody.transport == way.transport && anybody.next_hop == way.next_hop {
            return Ok(Some(Own::Relay(for_all(way))));
        }
        Ok(None)
    }
}

/// A setting that leads to a hop of ours.
enum Own {
    /// To one on the way out, for everybody's mail.
    Relay(String),
    /// To another one.
    Hop(String),
}

/// A hop that takes mail for any domain, by an entry of a transport table that is for all.
fn for_all(way: &Resolved) -> String {
    let (transport, hop) = (&way.transport, &way.next_hop);
    format!("{transport}:{hop}, which takes mail for all domains,")
}

/// A hop of our own that is reached with mandatory TLS.
pub struct OwnHop {
    /// The setting that leads there.
    pub setting: String,
    /// Its host, where no DNS has to say which that is.
    pub host: Option<String>,
    /// A number or a name.
    pub port: String,
    /// What to do if it offers no TLS.
    pub advice: String,
}

/// Settings that lead to a hop of our own by a service with mandatory TLS. `anybody`: the way of mail for a domain that no
/// table names.
pub fn own_hops(settings: &Settings, anybody: Option<&Resolved>) -> Vec<OwnHop> {
    let names = [
        "content_filter",
        "relay_transport",
        "default_transport",
        "virtual_transport",
        "local_transport",
    ];
    let mut values: Vec<(String, &str)> = names
        .iter()
        .map(|name| ((*name).to_owned(), settings.get(name)))
        .collect();
    for service in &settings.services {
        if let Some(value) = settings.option(service, "content_filter") {
            values.push((format!("content_filter of {}", service.id()), value));
        }
    }
    let is_mandatory = |service: &Service| {
        let level = parameter(service, "tls_security_level");
        let level = Level::named(settings.for_service(service, &level));
        service.command == "smtp" && level.is_some_and(|level| level >= Level::Encrypt)
    };
    let own = |setting: String, hop: &str, advice: String| {
        let port = hop.rsplit_once([':', ']']).map_or("", |(_, port)| port);
        OwnHop {
            setting,
            host: hop.starts_with('[').then(|| destination(hop).to_owned()),
            port: if port.is_empty() { "25" } else { port }.to_owned(),
            advice,
        }
    };
    let mut hops: Vec<OwnHop> = values
        .into_iter()
        .filter_map(|(name, value)| {
            let (transport, hop) = value.split_once(':')?;
            let service = settings.service(transport, "unix")?;
            let setting = format!("{name} = {value}");
            (is_mandatory(service) && !hop.is_empty())
                .then(|| own(setting, hop, advice(settings, service)))
        })
        .collect();
    let turn_on = || "turn TLS on there".to_owned();
    for name in ["relayhost", "smtp_fallback_relay"] {
        for hop in list(settings.get(name)) {
            hops.push(own(format!("{name} = {hop}"), hop, turn_on()));
        }
    }
    if let Some(way) = anybody
        && !matches!(way.next_hop.as_str(), "" | ANY_DOMAIN)
        && !hops.iter().any(|hop| hop.setting.ends_with(&way.next_hop))
        && settings
            .service(&way.transport, "unix")
            .is_some_and(is_mandatory)
    {
        hops.push(own(for_all(way), &way.next_hop, turn_on()));
    }
    hops
}

/// Is this an address of this host? The kernel answers itself with the address that was asked for. (Of an IPv4 interface with
/// several addresses in one network it does so for the first of them.) A private address alone says nothing: networks of
/// partners and of other departments have some, too.
fn is_here(address: IpAddr) -> bool {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Nothing is sent. The port is that of "discard".
    let source = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    source().is_ok_and(|source| source.ip() == address)
}

/// Which setting sends the message to a filter, and what to do.
pub(super) fn by_filter(settings: &Settings, filter: &str) -> String {
    let shown = readable(filter, 200);
    let setting = settings.get("content_filter") == filter
        || settings
            .services
            .iter()
            .any(|service| settings.option(service, "content_filter") == Some(filter));
    let name = if setting {
        "content_filter ="
    } else {
        "FILTER"
    };
    let service = filter.split(':').next().unwrap_or_default();
    let advice = settings.service(service, "unix").map_or_else(
        || format!("master.cf has no service {service:?}"),
        |service| advice(settings, service),
    );
    format!("{name} {shown} is a hop of our own: {advice}")
}

/// How a hop of ours is reached without TLS, and without letting anything else out in plain text.
fn advice(settings: &Settings, service: &Service) -> String {
    let usual = settings
        .get("default_transport")
        .split(':')
        .next()
        .unwrap_or_default();
    let level = format!("-o {}=may", parameter(service, "tls_security_level"));
    if service.name == usual {
        format!(
            "it may offer no TLS: use a service of its own for it, a copy of {} in master.cf with {level}",
            service.name
        )
    } else {
        format!(
            "it may offer no TLS: give the service {} {level} in master.cf",
            service.name
        )
    }
}

/// The host of a destination such as `[host]:587` or `host:25`.
fn destination(next_hop: &str) -> &str {
    let host = match next_hop.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => next_hop.split(':').next().unwrap_or(next_hop),
    };
    host.strip_prefix("ipv6:")
        .or_else(|| host.strip_prefix("IPv6:"))
        .unwrap_or(host)
}

/// Is a destination of a setting this server?
fn is_host(relay: &str, host: &Host) -> bool {
    let name = destination(relay);
    name.eq_ignore_ascii_case(&host.name) || name.parse() == Ok(host.address)
}

fn shown_domain(recipient: &Address) -> String {
    Domain::of(recipient).map_or_else(|| recipient.domain(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_destination() {
        for (next_hop, host) in [
            ("[smart.test]:587", "smart.test"),
            ("[127.0.0.1]", "127.0.0.1"),
            ("[ipv6:::1]:25", "::1"),
            ("example.test:25", "example.test"),
            ("example.test", "example.test"),
            ("", ""),
        ] {
            assert_eq!(destination(next_hop), host, "{next_hop}");
        }
    }

    #[test]
    fn addresses_of_this_host() {
        for here in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
        ] {
            assert!(is_here(here.parse().unwrap()), "{here}");
        }
        // Of TEST-NET-3, and private ones that no interface here has.
        for elsewhere in ["203.0.113.9", "10.255.254.253", "2001:db8::9", "fd00::9"] {
            assert!(!is_here(elsewhere.parse().unwrap()), "{elsewhere}");
        }
    }
}
