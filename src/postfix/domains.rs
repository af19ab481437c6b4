//! The domains that an instance calls its own, as far as its `main.cf` names them: whose senders `posttls init` takes for
//! ours. Tables are not looked up, as they may hold a million names, or need a database that is not there yet.

use std::path::Path;

use super::instance::{PostfixError, program, run};
use crate::domain::Domain;

/// Parameters that name domains of the instance's own users.
const PARAMETERS: [&str; 6] = [
    "mydestination",
    "virtual_mailbox_domains",
    "virtual_alias_domains",
    "relay_domains",
    "mydomain",
    "myhostname",
];

/// What the settings of an instance say about its own domains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnDomains {
    /// The names that stand there, each once.
    pub named: Vec<Domain>,
    /// Parameters with what stands there and names no domain by itself: tables, files, patterns.
    pub not_looked_up: Vec<(&'static str, String)>,
}

/// Asks `postconf`.
///
/// # Errors
/// When there is no such instance.
pub fn own_domains(config_dir: &Path) -> Result<OwnDomains, PostfixError> {
    let mut found = OwnDomains::default();
    for parameter in PARAMETERS {
        // One by one: a value may be empty, and then its line says no name.
        let output = run(program("postconf", config_dir).args(["-x", "-h", parameter]))?;
        found.add(parameter, &String::from_utf8_lossy(&output.stdout));
    }
    Ok(found)
}

impl OwnDomains {
    fn add(&mut self, parameter: &'static str, value: &str) {
        for word in words(value) {
            match word.parse::<Domain>() {
                Ok(domain) if is_nobodys(&domain) || self.named.contains(&domain) => {}
                Ok(domain) => self.named.push(domain),
                Err(_) => self.not_looked_up.push((parameter, word)),
            }
        }
    }
}

/// Names that every host has for itself.
fn is_nobodys(domain: &Domain) -> bool {
    let name = domain.as_str();
    name.starts_with("localhost") || name == "localdomain" || name.ends_with(".localdomain")
}

/// The words of a list, as Postfix tells them apart: by blanks and commas outside of braces.
fn words(value: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut depth = 0_usize;
    for c in value.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (c.is_whitespace() || c == ',') {
            found.push(String::new());
        } else if let Some(word) = found.last_mut() {
            word.push(c);
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_all_else_is_named() {
        let mut found = OwnDomains::default();
        found.add(
            "mydestination",
            "Mail.example.org, localhost.example.org, localhost,hash:/etc/postfix/dest, /etc/postfix/names, .sub.example.org\n",
        );
        found.add(
            "relay_domains",
            "inline:{r.example=ok s.example=ok} müller.example",
        );
        found.add("virtual_alias_domains", "\n");
        found.add("mydomain", "localdomain\n");
        found.add("myhostname", "mail.example.org\n");
        let named: Vec<&str> = found.named.iter().map(Domain::as_str).collect();
        assert_eq!(named, ["mail.example.org", "xn--mller-kva.example"]);
        let rest: Vec<(&str, &str)> = found
            .not_looked_up
            .iter()
            .map(|(parameter, word)| (*parameter, word.as_str()))
            .collect();
        assert_eq!(
            rest,
            [
                ("mydestination", "hash:/etc/postfix/dest"),
                ("mydestination", "/etc/postfix/names"),
                ("mydestination", ".sub.example.org"),
                ("relay_domains", "inline:{r.example=ok s.example=ok}"),
            ]
        );
    }
}
