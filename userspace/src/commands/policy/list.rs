//! `septwatch policy list`

use std::{io::Write, path::Path};

use anyhow::Result;
use serde_json::json;

use super::unusable;
use crate::{
    commands::exit,
    policy::{file::Policy, shipped},
};

/// Lists the policies that come with septwatch.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    for (name, text) in shipped::all() {
        let policy = Policy::parse(Path::new(name), text).map_err(unusable)?;
        let about = policy.about.unwrap_or_default();
        if args.json {
            let default = name == shipped::DEFAULT;
            writeln!(
                out,
                "{}",
                json!({"name": name, "about": about, "armed": policy.armed, "default": default})
            )?;
        } else {
            let default = if name == shipped::DEFAULT { " (default)" } else { "" };
            writeln!(out, "{name:<24} {about}{default}")?;
        }
    }
    Ok(exit::OK)
}
