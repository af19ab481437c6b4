//! `posttls-ear`, which the may instance's SMTP clients tell how they deliver.
fn main() -> std::process::ExitCode {
    posttls::ear::main().into()
}
