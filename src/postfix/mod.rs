//! Everything that knows Postfix.

mod queue_id;

pub use queue_id::{BadQueueId, QueueId};
