//! `posttls`, the admin's command.
fn main() {}
