//! Checks of what the mover asks when mail is stuck: policies that demand TLS, and hops of our own.

use super::context::Context;
use super::{Outcome, Skip, Verdict};
use crate::mover::{self, Ways};
use crate::postfix::Instance;

/// Can every table of policies be asked, and does trivial-rewrite answer? Else nothing is offered to anybody.
pub(super) fn policies(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let what = "encrypt instance: policies that demand TLS";
    let instance = Instance::load(&at.config.encrypt.config_dir)
        .map_err(|_| Skip("the encrypt instance can't be read"))?;
    let todo =
        "mend it: until then nothing that waits can be judged, and nothing is offered for sending";
    let asked = match Ways::try_tables(settings) {
        Ok(asked) => asked,
        Err(why) => return Ok(Verdict::fail(format!("{what} can't be asked: {why}"), todo)),
    };
    if settings.is_running().unwrap_or(false)
        && let Err(why) = mover::ask_route(settings, &instance, "", "postmaster@posttls.invalid")
    {
        return Ok(Verdict::fail(
            format!("encrypt instance: routes can't be asked: {why}"),
            todo,
        ));
    }
    let asked = if asked.is_empty() {
        "there are none".to_owned()
    } else {
        asked
    };
    Ok(Verdict::ok(format!("{what} can be asked: {asked}")))
}

/// Hops of our own that are reached with mandatory TLS: if they offer none, all mail is stuck, inbound mail, too.
pub(super) fn own_hops(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let hops = mover::own_hops(settings);
    if hops.is_empty() {
        return Ok(Verdict::ok(
            "encrypt instance: no hop of our own is reached with mandatory TLS",
        ));
    }
    Ok(Verdict::warn(
        format!(
            "encrypt instance: hops of our own are reached with mandatory TLS: {}",
            hops.join("; ")
        ),
        "if one of them offers no TLS, all mail through it is stuck, and no sender can help that",
    ))
}
