//! PostTLS: lets Postfix refuse unencrypted delivery, and asks the sender when a server has no usable TLS.
#![forbid(unsafe_code)]

pub mod address;
pub mod case;
pub mod postfix;
pub mod sandbox;
pub mod text;
pub mod web;
