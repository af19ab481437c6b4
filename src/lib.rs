//! PostTLS: lets Postfix refuse unencrypted delivery, and asks the sender when a server has no usable TLS.
//!
//! Four programs share this library, each process with a privilege of its own (`posttls-ear`, in [`ear`], only listens to
//! the may instance):
//!
//! ```text
//! encrypt instance: defer service ── delay notice ──► posttls-pipe (notice::hook, user posttls)
//!                                                       │ case::store          │ notify
//!                                                       ▼                      ▼
//!                                                  SQLite store          mail to the sender
//!                                                       ▲                      │ link
//!                                                       ▲  courier (posttls-httpd, user posttls): all mail but the first
//! may instance ◄── queue file ── mover (posttls-httpd, root) ◄── web child (web, user posttls-web) ◄── browser
//!                                                       ▲
//!                                                  posttls (admin)
//! ```
//!
//! The message itself never leaves Postfix's queues: `mover` takes its queue file from one instance to the other, under
//! a journal in the store. Dependencies point one way: programs, then [`admin`], [`notice`], [`mover`] and [`web`], then
//! [`courier`], then [`case`], [`notify`], [`link`] and [`postfix`], then [`config`] and [`exit`]. [`address`], [`octets`]
//! and [`text`] make what comes from strangers safe, once, at the border. [`sandbox`] is for demo, tests and benchmarks.
#![forbid(unsafe_code)]
// These panic where nobody reads or no space is left; see `logging::to_stderr`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod address;
#[cfg(feature = "programs")]
pub mod admin;
pub mod case;
#[cfg(feature = "programs")]
pub mod config;
#[cfg(feature = "programs")]
pub mod confine;
pub mod connect;
#[cfg(feature = "programs")]
pub mod courier;
pub mod domain;
#[cfg(feature = "programs")]
pub mod ear;
#[cfg(feature = "programs")]
pub mod exit;
#[cfg(feature = "programs")]
pub mod httpd;
#[cfg(feature = "programs")]
pub mod intake;
#[cfg(feature = "programs")]
pub mod language;
pub mod link;
#[cfg(feature = "programs")]
pub mod logging;
#[cfg(feature = "programs")]
pub mod mover;
pub mod notice;
#[cfg(feature = "programs")]
pub mod notify;
pub mod octets;
pub mod postfix;
#[cfg(feature = "programs")]
pub mod sandbox;
pub mod standing;
pub mod text;
pub mod web;
