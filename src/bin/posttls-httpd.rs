//! `posttls-httpd`, the mover and its web child.
fn main() -> std::process::ExitCode {
    posttls::httpd::main().into()
}
