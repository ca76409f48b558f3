//! The `septwatch` command.

fn main() {}
