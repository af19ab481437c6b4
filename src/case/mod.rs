//! What PostTLS knows: cases, their states, and the store.

mod failure;

pub use failure::{BadFailure, Failure};
