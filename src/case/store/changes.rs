//! What has changed since somebody looked last, so that whoever looks after all cases that are not closed need not read
//! them again and again.

use rusqlite::{Connection, OptionalExtension as _};

use super::cases::{CASE_COLUMNS, case_of};
use super::{Store, StoreError};
use crate::case::{Case, CaseId};

/// A place in the history of all cases: its newest row then. Rows are numbered in the order in which they are committed,
/// and never removed; times would not do, as clocks are set back. Its time and case show that the store is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMark {
    event: i64,
    at: i64,
    case: Option<CaseId>,
}

/// What has changed.
#[derive(Debug)]
pub struct Changes {
    /// Ask from here on next time; `None` while nothing at all has happened yet.
    pub mark: Option<ChangeMark>,
    /// Are these all the cases there are that are not closed? Otherwise only those of which something was recorded.
    pub all: bool,
    /// Some may be closed by now.
    pub cases: Vec<Case>,
}

impl Store {
    /// The cases of which anything was recorded since `mark`: opened, changed, or closed. All that are not closed if there
    /// is no mark, or if it is of another store (one that was restored, say).
    ///
    /// # Errors
    /// When the store fails.
    pub fn changes(&self, mark: Option<&ChangeMark>) -> Result<Changes, StoreError> {
        self.read("cannot look for changes", |connection| {
            // First: what is recorded while the cases are read is then told once more next time.
            let newest = newest(connection)?;
            let from = match mark {
                Some(mark) if is_known(connection, mark)? => Some(mark.event),
                _ => None,
            };
            let which = match from {
                Some(_) => "id IN (SELECT case_id FROM events WHERE id > ?1)",
                None => "state <> 'closed' AND ?1 IS NULL",
            };
            let cases = connection
                .prepare_cached(&format!(
                    "SELECT {CASE_COLUMNS} FROM cases WHERE {which} ORDER BY opened_at, id"
                ))?
                .query_map([from], case_of)?
                .collect::<Result<_, _>>()?;
            Ok(Changes {
                mark: newest,
                all: from.is_none(),
                cases,
            })
        })
    }
}

fn newest(connection: &Connection) -> rusqlite::Result<Option<ChangeMark>> {
    connection
        .prepare_cached("SELECT id, at, case_id FROM events ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| {
            Ok(ChangeMark {
                event: row.get(0)?,
                at: row.get(1)?,
                case: row.get(2)?,
            })
        })
        .optional()
}

fn is_known(connection: &Connection, mark: &ChangeMark) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT at = ?2 AND case_id IS ?3 FROM events WHERE id = ?1")?
        .query_row((mark.event, mark.at, mark.case), |row| row.get(0))
        .optional()
        .map(|known| known.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{new_case, store};
    use super::*;
    use crate::case::store::Ending;
    use crate::case::{CaseState, RecipientState};

    fn asked(store: &Store, mark: &mut Option<ChangeMark>) -> (bool, Vec<Case>) {
        let changes = store.changes(mark.as_ref()).unwrap();
        *mark = changes.mark;
        (changes.all, changes.cases)
    }

    #[test]
    fn each_change_is_told_once_and_a_case_that_ends_too() {
        let (_directory, store) = store();
        let mut mark = None;
        let first = store.admit(&new_case("ABCDEF1", 100)).unwrap().case;
        let (all, cases) = asked(&store, &mut mark);
        assert!(all && cases.len() == 1);
        assert_eq!(asked(&store, &mut mark), (false, vec![]));
        let second = store.admit(&new_case("ABCDEF2", 100)).unwrap().case;
        let (all, cases) = asked(&store, &mut mark);
        assert_eq!((all, cases[0].id, cases.len()), (false, second, 1));
        let gone = |one: crate::case::Recipient| Ending {
            recipient: one.id,
            state: RecipientState::Gone,
            detail: String::new(),
        };
        let recipients = store.recipients(first).unwrap();
        let endings: Vec<Ending> = recipients.into_iter().map(gone).collect();
        store.end(first, &endings).unwrap();
        let (_, cases) = asked(&store, &mut mark);
        assert_eq!((cases[0].id, cases[0].state), (first, CaseState::Closed));
        // Somebody who has seen nothing yet is not told of what is closed.
        let (all, cases) = asked(&store, &mut None);
        assert_eq!((all, cases[0].id, cases.len()), (true, second, 1));
    }

    #[test]
    fn another_store_in_its_place_is_noticed() {
        let (_directory, before) = store();
        let (_other, after) = store();
        let mut mark = None;
        for number in 1..4 {
            let id = format!("ABCDEF{number}");
            before.admit(&new_case(&id, 100)).unwrap();
            after.admit(&new_case(&id, 100)).unwrap();
        }
        asked(&before, &mut mark);
        // As many rows, of other cases.
        let (all, cases) = asked(&after, &mut mark);
        assert!(all && cases.len() == 3);
        let (_empty, empty) = store();
        let (all, cases) = asked(&empty, &mut mark);
        assert!(all && cases.is_empty() && mark.is_none());
    }
}
