//! The check of what lies in the two hold queues: does the journal of moves know of it?

use super::context::Context;
use super::{Outcome, Skip, Verdict};
use crate::case::store::{Store, Version};
use crate::mover::{MoveError, strays};
use crate::postfix::Instance;

pub(super) fn holds(at: &Context<'_>) -> Outcome {
    if at.store()?.version != Version::Current {
        return Err(Skip("the store is not of this version"));
    }
    at.encrypt()?;
    at.may()?;
    let todo = "see that it can be read, and check again: nobody knows what lies there";
    let fault =
        |error: &dyn std::fmt::Display| Verdict::fail(format!("hold queues: {error}"), todo);
    let store = match Store::open(&at.config.store.path, false) {
        Ok(store) => store,
        Err(error) => return Ok(fault(&error)),
    };
    let load = |which| Instance::load(which);
    let (encrypt, may) = match (
        load(&at.config.encrypt.config_dir),
        load(&at.config.may.config_dir),
    ) {
        (Ok(encrypt), Ok(may)) => (encrypt, may),
        (Err(error), _) | (_, Err(error)) => return Ok(fault(&error)),
    };
    let found = match strays(&store, &encrypt, &may) {
        Ok(found) => found,
        // Another check says what is wrong with it.
        Err(MoveError::Listing { .. }) => return Err(Skip("a hold queue can't be read")),
        Err(error) => return Ok(fault(&error)),
    };
    let ids = |sure| {
        let all = found.iter().filter(|one| one.is_sure() == sure);
        let ids: Vec<&str> = all.map(|one| one.id().as_str()).collect();
        ids.join(", ")
    };
    let (sure, perhaps) = (ids(true), ids(false));
    Ok(if !sure.is_empty() {
        Verdict::fail(
            format!(
                "hold queues: left there by moves that the journal does not know, and sent to nobody: {sure}"
            ),
            "`posttls census` records it; `posttls resolve QUEUE_ID` and the log then say what lies where, and how to settle it",
        )
    } else if !perhaps.is_empty() {
        Verdict::warn(
            format!("hold queues: on hold with recipients done of whom nobody saw how: {perhaps}"),
            "if no admin has put it on hold, a move has, and the store was restored since; `posttls case QUEUE_ID` says more",
        )
    } else {
        Verdict::ok("hold queues: nothing in them that a move has left without the journal")
    })
}
