//! People: senders by the form in which every spelling of a domain is the same.

use rusqlite::{Transaction, params};

use crate::address::Address;
use crate::case::MessageKey;
use crate::domain::Domain;

/// What tables that are about people hold of a sender.
pub(super) fn person(sender: &Address) -> Address {
    Domain::canonical(sender)
}

/// As [`person`], of a message; empty for the null sender.
pub(super) fn person_of(key: &MessageKey) -> String {
    key.sender
        .as_ref()
        .map_or_else(String::new, |sender| person(sender).into())
}

/// Brings what was recorded under other spellings under one. Of two numbers of one person both stay, as links carry them.
pub(super) fn respell(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    for (select, update) in [
        (
            "SELECT DISTINCT sender FROM cases WHERE sender <> ''",
            "UPDATE cases SET person = ?2 WHERE sender = ?1",
        ),
        (
            "SELECT DISTINCT sender FROM owed",
            "UPDATE owed SET sender = ?2 WHERE sender = ?1",
        ),
        (
            "SELECT DISTINCT sender FROM letters",
            "UPDATE letters SET sender = ?2 WHERE sender = ?1",
        ),
        (
            "SELECT DISTINCT sender FROM consents",
            "UPDATE consents SET sender = ?2 WHERE sender = ?1",
        ),
        (
            "SELECT address FROM senders",
            "UPDATE OR IGNORE senders SET address = ?2 WHERE address = ?1",
        ),
        (
            "SELECT DISTINCT target FROM consents WHERE scope = 'recipient'",
            "UPDATE consents SET target = ?2 WHERE scope = 'recipient' AND target = ?1",
        ),
    ] {
        let spelt: Vec<Address> = tx
            .prepare(select)?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut update = tx.prepare(update)?;
        for address in spelt {
            update.execute(params![address, person(&address)])?;
        }
    }
    tx.execute_batch("DROP INDEX cases_by_sender")
}
