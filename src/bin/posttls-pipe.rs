//! `posttls-pipe`, the hook that pipe(8) runs for each delay notice.
fn main() {}
