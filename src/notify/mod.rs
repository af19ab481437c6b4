//! What the sender is told: one mail, composed from templates and handed to the configured server.

mod compose;
mod send;

pub use compose::{ComposeError, Letter, TEMPLATES, compose};
pub use send::{SendError, probe, send};
