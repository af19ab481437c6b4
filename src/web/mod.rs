//! The unprivileged side that speaks HTTP.

pub mod protocol;
