//! Sets up, builds, tests and measures septwatch: `cargo xtask --help`.

fn main() {}
