//! The unprivileged side that speaks HTTP.
//!
//! The web child reads no file, holds no secret and knows no case: it turns a request into one [`protocol::Question`],
//! hands it to the mover, and turns the answer into a page. `routes`, `form`, `language`, `pages` and `view` are pure;
//! `serve` joins them with one HTTP request; `gate` is what strangers reach, and lets only whole, well-formed requests go
//! on to tiny_http and `serve`; `guesses` counts unknown tokens. `child` is the process, `mover_link` its only way to the
//! mover, and `privilege` proves before all that that there is nothing in the process worth taking over.

#[cfg(feature = "programs")]
pub mod child;
pub mod facts;
pub mod form;
pub mod gate;
#[cfg(feature = "programs")]
pub mod guesses;
pub mod inbox_form;
#[cfg(feature = "programs")]
pub mod language;
#[cfg(feature = "programs")]
pub mod mover_link;
#[cfg(feature = "programs")]
pub mod origin;
#[cfg(feature = "programs")]
pub mod pages;
#[cfg(feature = "programs")]
pub mod privilege;
pub mod protocol;
#[cfg(feature = "programs")]
pub mod reply;
pub mod routes;
#[cfg(feature = "programs")]
pub mod serve;
#[cfg(feature = "programs")]
mod view;
#[cfg(feature = "programs")]
mod view_inbox;
