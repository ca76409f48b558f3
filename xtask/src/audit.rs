//! The check of what septwatch depends on, from Cargo.lock: `deny.toml` has the rules, cargo-deny applies them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::setup::cargo_tools;
use crate::{run, setup};

/// Checks licences, doubles and sources, which needs no network; and advisories where their database is at hand or
/// can be fetched.
///
/// # Errors
/// cargo-deny cannot be built, or found something: it has shown what.
pub fn run() -> Result<()> {
    let program = {
        let _lock = setup::alone()?;
        cargo_tools::cargo_deny()?
    };
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--locked", "--color", "never"]).args(arguments).stdin(Stdio::null());
        command
    };
    run::shown(&mut deny(&["check", "--deny", "unmatched-skip", "licenses", "bans", "sources"]))?;
    let mut fetch = deny(&["fetch", "db"]);
    // A network that swallows packets must not hold up everything else, nor a prompt that nobody sees.
    fetch
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_HTTP_LOW_SPEED_LIMIT", "1000")
        .env("GIT_HTTP_LOW_SPEED_TIME", "30");
    match run::quiet(&mut fetch) {
        Ok(_) => run::shown(&mut deny(&["check", "advisories"])),
        Err(why) if has_database() => {
            println!("advisories: the database cannot be renewed, an older one is used: {why:#}");
            run::shown(&mut deny(&["--offline", "check", "advisories"]))
        }
        Err(why) => {
            println!("advisories: NOT CHECKED. No database is here and none can be fetched: {why:#}");
            Ok(())
        }
    }
}

/// Whether cargo-deny has fetched a database on this machine before.
fn has_database() -> bool {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let databases = cargo_home.and_then(|home| home.join("advisory-dbs").read_dir().ok());
    databases.is_some_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir())))
}
