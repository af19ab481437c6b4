//! stub
use super::Done;
#[derive(Debug, clap::Args)]
pub(super) struct SandboxOptions {}
pub(super) fn run(_options: &SandboxOptions) -> Done {
    Ok(crate::exit::Exit::Ok)
}
