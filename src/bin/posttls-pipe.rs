//! `posttls-pipe`, the hook that pipe(8) runs for each delay notice.
fn main() -> std::process::ExitCode {
    posttls::notice::hook::main().into()
}
