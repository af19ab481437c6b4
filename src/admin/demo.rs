//! stub
use super::Done;
#[derive(Debug, clap::Args)]
pub(super) struct DemoOptions {}
pub(super) fn run(_options: &DemoOptions) -> Done {
    Ok(crate::exit::Exit::Ok)
}
