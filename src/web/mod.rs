//! The unprivileged side that speaks HTTP.
//!
//! The web child reads no file, holds no secret and knows no case: it turns a request into one [`protocol::Question`],
//! hands it to the mover, and turns the answer into a page. `routes`, `form`, `language`, `pages` and `view` are pure;
//! `serve` joins them with one HTTP request; `gate` is what strangers reach, and lets only whole, well-formed requests go
//! on to tiny_http and `serve`; `guesses` counts unknown tokens. `child` is the process, `mover_link` its only way to the
//! mover, and `privilege` proves before all that that there is nothing in the process worth taking over.

pub mod child;
pub mod facts;
pub mod form;
mod gate;
pub mod guesses;
pub mod inbox_form;
pub mod language;
pub mod mover_link;
pub mod origin;
pub mod pages;
pub mod privilege;
pub mod protocol;
pub mod reply;
pub mod routes;
pub mod serve;
mod view;
mod view_inbox;
