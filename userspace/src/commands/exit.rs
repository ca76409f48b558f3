//! Exit codes, the same for every subcommand.

/// Nothing is wrong.
pub const OK: u8 = 0;
/// A violation was found; for `demo`, what was found differs from what was caused.
pub const VIOLATION: u8 = 1;
/// The command line or the input is wrong.
pub const USAGE: u8 = 2;
/// This host cannot do it.
pub const HOST: u8 = 3;
/// Interrupted by a signal before there was a result.
pub const INTERRUPTED: u8 = 130;
