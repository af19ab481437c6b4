//! PostTLS: lets Postfix refuse unencrypted delivery, and asks the sender when a server has no usable TLS.
#![forbid(unsafe_code)]

pub mod address;
pub mod admin;
pub mod case;
pub mod config;
pub mod exit;
pub mod httpd;
pub mod link;
pub mod logging;
pub mod mover;
pub mod notice;
pub mod notify;
pub mod postfix;
pub mod sandbox;
pub mod text;
pub mod web;
