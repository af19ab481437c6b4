//! What stands between a stuck recipient and plain text, as Postfix itself would say: is the message under REQUIRETLS, at
//! whose server did it fail, and does a policy of the encrypt instance demand TLS for its next hop?
//!
//! Only root can know: the queue file is closed to others, and tables may be. Asked by sweep, census and moves within the
//! mover, by the hook through [`super::standing`], and by the admin's command. What can't be found out is unknown, never free.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::source::Source;
use crate::address::Address;
use crate::domain::Domain;
use crate::intake::Deferred;
use crate::postfix::instance::PostfixError;
use crate::postfix::settings::list;
use crate::postfix::tls_policy::{self, Level};
use crate::postfix::{Instance, QueueFile, Resolved, Service, Settings, resolve};
use crate::standing::{Host, Standing, is_near};
use crate::text::readable;

/// How long an answer about a next hop counts: long enough for a burst of notices, too short for anybody to notice.
const FRESH: Duration = Duration::from_secs(5);
/// How long a table may take: somebody's click may wait for it.
const PATIENCE: Duration = Duration::from_secs(4);
/// Next hops that are remembered for so long.
const MOST: usize = 10_000;
/// Characters of a remark.
const REMARK: usize = 300;

/// What tells one version of main.cf and master.cf from the next.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

/// What was asked for a next hop of a service, and when.
type Demand = Result<Option<String>, String>;

/// Finds out what stands on the ways of recipients.
pub struct Ways {
    /// Hosts with an address of this host or its networks that are somebody else's.
    remote: Vec<String>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    settings: Option<(Stamp, Arc<Settings>)>,
    demands: HashMap<(String, String, String), (Instant, Demand)>,
}

/// What a queue file says of its message's way.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    requires_tls: bool,
    filter: Option<String>,
    redirect: Option<String>,
}

impl From<&QueueFile> for Envelope {
    fn from(file: &QueueFile) -> Self {
        let text = |octets: &Vec<u8>| String::from_utf8_lossy(octets).into_owned();
        Self {
            requires_tls: file.size.requires_tls(),
            filter: file.filter.as_ref().map(text),
            redirect: file.redirect.as_ref().map(text),
        }
    }
}

impl Ways {
    /// `remote` names hosts with near addresses that are not ours.
    pub fn new(remote: &[String]) -> Self {
        Self {
            remote: remote.to_owned(),
            known: Mutex::default(),
        }
    }

    /// Judges those deferred recipients of a message whose words could mean several things.
    pub fn judge(&self, instance: &Instance, source: &Source, deferred: &mut [Deferred]) {
        let envelope = Envelope::from(&source.content);
        let sender = String::from_utf8_lossy(&source.content.sender);
        for one in deferred {
            if one.words.needs_standing() {
                one.standing = self.standing(
                    instance,
                    &envelope,
                    &sender,
                    &one.address,
                    one.host.as_ref(),
                );
            }
        }
    }

    /// What stands between this recipient and plain text.
    pub fn standing(
        &self,
        instance: &Instance,
        envelope: &Envelope,
        sender: &str,
        recipient: &Address,
        host: Option<&Host>,
    ) -> Standing {
        let standing = match self.settings(instance) {
            Ok(settings) => self.find_out(&settings, instance, envelope, sender, recipient, host),
            Err(error) => Err(error.to_string()),
        };
        match standing {
            // Whatever else can't be found out: this is certain.
            Err(_) if envelope.requires_tls => Standing::RequireTls,
            Err(why) => Standing::Unknown(readable(&why, REMARK)),
            Ok(standing) => standing,
        }
    }

    /// Can every table of policies be asked? What is wrong otherwise, and what was asked.
    ///
    /// # Errors
    /// What is wrong.
    pub fn try_tables(settings: &Settings) -> Result<String, String> {
        let mut asked = Vec::new();
        for service in settings.running("smtp") {
            for name in ["smtp_tls_policy_maps", "smtp_tls_per_site"] {
                let tables = settings.for_service(service, name);
                if tables.is_empty() || asked.contains(&tables) {
                    continue;
                }
                look_up(settings, tables, "posttls.invalid").map_err(|error| error.to_string())?;
                asked.push(tables);
            }
        }
        Ok(asked.join(", "))
    }

    fn settings(&self, instance: &Instance) -> Result<Arc<Settings>, PostfixError> {
        // Before they are read: a change in between is then seen as one.
        let now = stamp(&instance.config_dir);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, settings)) = &known.settings
            && *then == now
            && now.iter().all(Option::is_some)
        {
            return Ok(Arc::clone(settings));
        }
        let fresh = Arc::new(Settings::load(&instance.config_dir)?);
        known.settings = Some((now, Arc::clone(&fresh)));
        known.demands.clear();
        Ok(fresh)
    }

    fn find_out(
        &self,
        settings: &Settings,
        instance: &Instance,
        envelope: &Envelope,
        sender: &str,
        recipient: &Address,
        host: Option<&Host>,
    ) -> Result<Standing, String> {
        if let Some(target) = &envelope.redirect {
            return Ok(Standing::Ours(format!(
                "the message is redirected to <{}> (REDIRECT in a table of yours), and it failed on the way there",
                readable(target, 200)
            )));
        }
        if let Some(filter) = &envelope.filter {
            return Ok(Standing::Ours(by_filter(settings, filter)));
        }
        let way = ask_route(settings, instance, sender, recipient.as_str())?;
        let service = settings
            .service(&way.transport, "unix")
            .ok_or_else(|| format!("master.cf has no service {:?}", way.transport))?;
        if !matches!(service.command.as_str(), "smtp" | "lmtp") {
            return Err(format!(
                "Postfix would take it to {}:{} now, which is not smtp(8)",
                way.transport, way.next_hop
            ));
        }
        if let Some(why) = self.ours(settings, service, &way, sender, recipient, host)? {
            return Ok(Standing::Ours(why));
        }
        if envelope.requires_tls {
            return Ok(Standing::RequireTls);
        }
        Ok(match self.demand(settings, service, &way.next_hop, host)? {
            Some(demand) => Standing::Demanded(demand),
            None => Standing::Free,
        })
    }

    /// Is it a server of ours that it failed at? The setting that leads there, and what to do.
    fn ours(
        &self,
        settings: &Settings,
        service: &Service,
        way: &Resolved,
        sender: &str,
        recipient: &Address,
        host: Option<&Host>,
    ) -> Result<Option<String>, String> {
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
        let setting = own_setting(settings, way, sender, recipient)?;
        if let Some(relay) = setting
            .as_deref()
            .filter(|setting| setting.contains("relayhost"))
        {
            return Ok(Some(format!(
                "{relay} is a relay of our own: turn TLS on there"
            )));
        }
        if let Some(setting) = setting {
            let advice = advice(settings, service);
            return Ok(Some(format!("{setting} is a hop of our own: {advice}")));
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
                shown_domain(recipient)
            )));
        }
        let next_hop = destination(&way.next_hop);
        let near = match (next_hop.parse::<IpAddr>(), host) {
            (Ok(address), _) if is_near(address) => Some(address),
            _ if next_hop.eq_ignore_ascii_case("localhost") => Some([127, 0, 0, 1].into()),
            (_, Some(host)) if is_near(host.address) => Some(host.address),
            _ => None,
        };
        let Some(near) = near else { return Ok(None) };
        let name = host.map_or(next_hop, |host| host.name.as_str());
        let names = [near.to_string(), next_hop.to_owned(), name.to_owned()];
        if names.iter().any(|name| {
            self.remote
                .iter()
                .any(|remote| remote.eq_ignore_ascii_case(name))
        }) {
            return Ok(None);
        }
        Ok(Some(format!(
            "{hop} leads to {near}, on this host or a private network: {}; if it is somebody else's server, name it in \
             encrypt.remote_hosts",
            advice(settings, service)
        )))
    }

    /// Does a policy of ours demand TLS for this next hop? Which.
    fn demand(
        &self,
        settings: &Settings,
        service: &Service,
        next_hop: &str,
        host: Option<&Host>,
    ) -> Demand {
        let server = host.map_or("", |host| host.name.as_str());
        let key = (service.id(), next_hop.to_owned(), server.to_owned());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, demand)) = known.demands.get(&key)
            && when.elapsed() < FRESH
        {
            return demand.clone();
        }
        drop(known);
        let demand = ask_for_demand(settings, service, next_hop, server);
        known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.demands.len() >= MOST {
            known.demands.clear();
        }
        // Failures are remembered, too: a server that does not answer must not be waited for once for each recipient.
        known.demands.insert(key, (Instant::now(), demand.clone()));
        demand
    }
}

/// Where Postfix would take a recipient.
///
/// # Errors
/// Why it can't say.
pub fn ask_route(
    settings: &Settings,
    instance: &Instance,
    sender: &str,
    address: &str,
) -> Result<Resolved, String> {
    let rewrite = match settings.get("rewrite_service_name") {
        "" => "rewrite",
        name => name,
    };
    let socket = instance.queue_directory.join("private").join(rewrite);
    resolve(&socket, sender, address).map_err(|error| {
        let stopped = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        );
        let hint = if stopped {
            "; is the encrypt instance stopped?"
        } else {
            ""
        };
        format!("cannot ask {}: {error}{hint}", socket.display())
    })
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

/// Settings that lead to a hop of our own by a service with mandatory TLS.
pub fn own_hops(settings: &Settings) -> Vec<OwnHop> {
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
    let mandatory = |(name, value): (String, &str)| {
        let (transport, hop) = value.split_once(':')?;
        let service = settings.service(transport, "unix")?;
        let level = parameter(service, "tls_security_level");
        let level = Level::named(settings.for_service(service, &level))?;
        (service.command == "smtp" && !hop.is_empty() && level >= Level::Encrypt).then(|| {
            let host = hop.starts_with('[').then(|| destination(hop).to_owned());
            let port = hop.rsplit_once([':', ']']).map_or("", |(_, port)| port);
            OwnHop {
                setting: format!("{name} = {value}"),
                host,
                port: if port.is_empty() { "25" } else { port }.to_owned(),
                advice: advice(settings, service),
            }
        })
    };
    let mut hops: Vec<OwnHop> = values.into_iter().filter_map(mandatory).collect();
    for name in ["relayhost", "smtp_fallback_relay"] {
        for hop in list(settings.get(name)) {
            let port = hop.rsplit_once([':', ']']).map_or("", |(_, port)| port);
            hops.push(OwnHop {
                setting: format!("{name} = {hop}"),
                host: hop.starts_with('[').then(|| destination(hop).to_owned()),
                port: if port.is_empty() { "25" } else { port }.to_owned(),
                advice: "turn TLS on there".to_owned(),
            });
        }
    }
    hops
}

fn stamp(config_dir: &Path) -> Stamp {
    ["main.cf", "master.cf"].map(|name| {
        let found = std::fs::metadata(config_dir.join(name)).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    })
}

/// `smtp_NAME`, or `lmtp_NAME` for a service that runs as lmtp(8).
fn parameter(service: &Service, name: &str) -> String {
    format!("{}_{name}", service.command)
}

/// Does a policy demand TLS on the way to this next hop? It may be a list (Postfix 3.5 and later, src/smtp/smtp_connect.c), and
/// each member has a policy of its own: which one is taken is not known before, so a demand of any counts.
fn ask_for_demand(settings: &Settings, service: &Service, next_hop: &str, server: &str) -> Demand {
    let mut hops = list(next_hop);
    hops.retain(|hop| !hop.is_empty());
    if hops.is_empty() {
        hops.push(next_hop);
    }
    for hop in hops {
        if let Some(demand) = demand_of_hop(settings, service, hop, server)? {
            return Ok(Some(demand));
        }
    }
    Ok(None)
}

/// As `smtp_tls_policy_maps` is looked up (src/smtp/smtp_tls_policy.c): the first key that any table knows decides.
fn demand_of_hop(settings: &Settings, service: &Service, next_hop: &str, server: &str) -> Demand {
    let of = |name: &str| {
        let name = parameter(service, name);
        (settings.for_service(service, &name).to_owned(), name)
    };
    let (tables, name) = of("tls_policy_maps");
    let mut found = None;
    if !tables.is_empty() {
        for key in tls_policy::keys(next_hop) {
            if let Some(entry) =
                look_up(settings, &tables, key).map_err(|error| error.to_string())?
            {
                let level = tls_policy::policy(&entry).ok_or_else(|| {
                    format!(
                        "{name} has no valid policy for {key}: {}",
                        readable(&entry, 100)
                    )
                })?;
                found = Some((level, name, key));
                break;
            }
        }
    } else {
        // Older, and ignored beside the other. Of next hop and server the stricter entry counts.
        let (tables, name) = of("tls_per_site");
        for key in [next_hop, server] {
            if tables.is_empty() || key.is_empty() {
                continue;
            }
            if let Some(entry) =
                look_up(settings, &tables, key).map_err(|error| error.to_string())?
            {
                let level = tls_policy::per_site(&entry).ok_or_else(|| {
                    format!(
                        "{name} has no valid policy for {key}: {}",
                        readable(&entry, 100)
                    )
                })?;
                if found.as_ref().is_none_or(|(known, ..)| *known < level) {
                    found = Some((level, name.clone(), key));
                }
            }
        }
    }
    if let Some((level, name, key)) = found {
        return Ok(level
            .is_demand()
            .then(|| format!("{} for {key}, by {name}", level.as_str())));
    }
    let (level, name) = of("tls_security_level");
    let own = Level::named(&level);
    let usual = Level::named(settings.get(&name));
    let where_it_is = format!("{level}, by {name} of the service {}", service.id());
    Ok(match own {
        // What fails at this level is what a domain has published.
        Some(Level::Dane | Level::DaneOnly) => Some(where_it_is),
        // Mail that is sent by a service of its own, with a level of its own, is sent so by somebody's will.
        Some(level) if level > Level::Encrypt && own != usual => Some(where_it_is),
        _ => None,
    })
}

/// What the first table that knows the key has for it. A table without a type is of Postfix's default type.
fn look_up(settings: &Settings, tables: &str, key: &str) -> Result<Option<String>, PostfixError> {
    for table in list(tables) {
        let found = if table.contains(':') {
            settings.lookup_within(PATIENCE, table, key)?
        } else {
            let kind = settings.get("default_database_type");
            settings.lookup_within(PATIENCE, &format!("{kind}:{table}"), key)?
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The setting, other than a transport table, that leads to this next hop, if it is not the recipient's own domain.
fn own_setting(
    settings: &Settings,
    way: &Resolved,
    sender: &str,
    recipient: &Address,
) -> Result<Option<String>, String> {
    if way.next_hop.is_empty() || way.next_hop.eq_ignore_ascii_case(&recipient.domain()) {
        return Ok(None);
    }
    if settings.get("relayhost") == way.next_hop {
        return Ok(Some(format!("relayhost = {}", way.next_hop)));
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
        return Ok(Some(format!("{name} = {}", settings.get(name))));
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
            let found = look_up(settings, tables, key).map_err(|error| error.to_string())?;
            if found.is_some_and(|value| value == way.next_hop || leads(&value)) {
                return Ok(Some(format!("{name} ({key}: {})", way.next_hop)));
            }
        }
    }
    Ok(None)
}

/// Which setting sends the message to a filter, and what to do.
fn by_filter(settings: &Settings, filter: &str) -> String {
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
}
