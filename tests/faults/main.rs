//! Everything around PostTLS breaks in its turn, on real Postfix: what the sender sees, what the admin sees, and that
//! all goes on by itself to the right end when the fault is mended. One program, so that it is linked once.
//!
//! What the hook does about each fault by itself is in tests/hook.rs, what `posttls check` finds in tests/check.

#[path = "../common/mod.rs"]
mod common;
#[path = "../hook_stage/mod.rs"]
mod hook_stage;

mod clock;
mod damage;
mod full;
mod jump;
mod key;
mod kit;
mod locked;
mod mail_server;
mod mute;
mod races;
mod stopped;
mod tools;
