//! What senders and the admin are told: mails, composed from templates and catalogues of texts, and handed to the
//! configured server.

mod compose;
mod drafts;
mod field;
mod send;
mod templates;
mod texts;

pub use compose::{ComposeError, Draft, Letter, is_ours};
pub use drafts::{About, ConsentLine, Line, Reminder};
pub use send::{Probed, SendError, probe, send};
pub use templates::{Overrides, TEMPLATES, TemplateError, overrides};
pub use texts::{TextError, Texts};
