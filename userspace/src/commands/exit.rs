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

/// What a shell says of a command that ended like this.
pub fn of(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let signal = status.signal().map(|signal| signal.saturating_add(128));
    let code = status.code().or(signal);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(HOST)
}
