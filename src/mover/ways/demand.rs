//! Does a policy of the encrypt instance demand TLS on the way to a next hop? Tables are asked under the keys that smtp(8) uses.

use super::{Stuck, parameter};
use crate::postfix::Service;
use crate::postfix::settings::list;
use crate::postfix::tls_policy::{self, Level};
use crate::text::readable;

/// The level that is demanded, if one is, and where that stands.
type Demand = Result<Option<String>, String>;

impl Stuck<'_> {
    /// Does a policy demand TLS on the way to this next hop? It may be a list (Postfix 3.5 and later, src/smtp/smtp_connect.c), and
    /// each member has a policy of its own: which one is taken is not known before, so a demand of any counts.
    pub(super) fn demand(&self, service: &Service, next_hop: &str) -> Demand {
        let mut hops = list(next_hop);
        hops.retain(|hop| !hop.is_empty());
        if hops.is_empty() {
            hops.push(next_hop);
        }
        for hop in hops {
            if let Some(demand) = self.demand_of_hop(service, hop)? {
                return Ok(Some(demand));
            }
        }
        Ok(None)
    }

    /// As `smtp_tls_policy_maps` is looked up (src/smtp/smtp_tls_policy.c): the first key that any table knows decides.
    fn demand_of_hop(&self, service: &Service, next_hop: &str) -> Demand {
        let settings = self.settings;
        let server = self.host.map_or("", |host| host.name.as_str());
        let level_of = |tables: &str, name: &str, key: &str, read: fn(&str) -> Option<Level>| {
            let Some(entry) = self.tables.look_up(settings, tables, key)? else {
                return Ok(None);
            };
            let level = read(&entry).ok_or_else(|| {
                format!(
                    "{name} has no valid policy for {key}: {}",
                    readable(&entry, 100)
                )
            })?;
            Ok::<_, String>(Some(level))
        };
        let of = |name: &str| {
            let name = parameter(service, name);
            (settings.for_service(service, &name).to_owned(), name)
        };
        let (tables, name) = of("tls_policy_maps");
        let mut found = None;
        if !tables.is_empty() {
            for key in tls_policy::keys(next_hop) {
                if let Some(level) = level_of(&tables, &name, key, tls_policy::policy)? {
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
                if let Some(level) = level_of(&tables, &name, key, tls_policy::per_site)?
                    && found.as_ref().is_none_or(|(known, ..)| *known < level)
                {
                    found = Some((level, name.clone(), key));
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
}
