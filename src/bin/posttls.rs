//! `posttls`, the admin's command.
fn main() -> std::process::ExitCode {
    posttls::admin::main().into()
}
