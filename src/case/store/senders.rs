//! Senders by number: the link to all of a sender's messages carries it.

use rusqlite::{OptionalExtension as _, params};

use super::people::person;
use super::{Store, StoreError};
use crate::address::Address;
use crate::case::SenderId;

impl Store {
    /// The number of a sender; made when there is none yet.
    ///
    /// # Errors
    /// When the store fails.
    pub fn sender_id(&self, sender: &Address) -> Result<SenderId, StoreError> {
        self.write("cannot number a sender", |tx| {
            tx.prepare_cached(
                "INSERT INTO senders (id, address) VALUES (abs(random() / 2), ?1) ON CONFLICT DO NOTHING",
            )?
            .execute(params![person(sender)])?;
            tx.prepare_cached("SELECT id FROM senders WHERE address = ?1")?
                .query_row([person(sender)], |row| row.get(0))
        })
    }

    /// The sender with this number.
    ///
    /// # Errors
    /// When the store fails.
    pub fn sender(&self, id: SenderId) -> Result<Option<Address>, StoreError> {
        self.read("cannot look a sender up", |connection| {
            connection
                .prepare_cached("SELECT address FROM senders WHERE id = ?1")?
                .query_row([id], |row| row.get(0))
                .optional()
        })
    }
}
