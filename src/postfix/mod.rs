//! Everything that knows Postfix.

pub mod instance;
mod queue_id;
pub mod user;

pub use instance::Instance;
pub use queue_id::{BadQueueId, QueueId};
