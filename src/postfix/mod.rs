//! Everything that knows Postfix.

#[cfg(feature = "programs")]
pub mod apart;
pub(crate) mod command;
mod content;
mod defer_log;
pub mod domains;
mod envelope;
mod header;
pub mod instance;
mod lifetime;
mod listing;
mod mark;
pub mod master;
#[cfg(feature = "programs")]
pub mod mirror;
mod queue;
mod queue_file;
mod queue_id;
mod record;
mod resolve;
pub mod settings;
pub mod tls_policy;
pub mod user;

pub use content::check_content;
pub use defer_log::{Deferral, Log, deferrals};
pub use header::header;
pub use instance::Instance;
pub use lifetime::Lifetimes;
pub use listing::{Entry, Listing, ListingError};
pub use mark::{MarkError, mark_done};
pub use queue::Queue;
pub use queue_file::{QueueFile, QueueFileError, Recipient, RecipientState, Size};
pub use queue_id::{BadQueueId, QueueId};
pub use record::{Record, RecordError, RecordReader};
pub use resolve::{Resolved, resolve};
pub use settings::{Service, Settings};
