//! `posttls-httpd`, the mover and its web child.
fn main() {}
