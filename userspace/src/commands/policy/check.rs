//! `septwatch policy check`

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use super::{find, means};
use crate::{commands::exit, policy::explain::gaps};

/// Says whether a policy is right, and whether this host can carry it out.
///
/// Exit code 0: it is, and it can; 2: it is not: the file, line and key are named; 3: this host cannot carry all of it out.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A policy file, or the name of a shipped policy.
    policy: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let policy = find(&args.policy)?;
    let means = means::of_host()?;
    let gaps = gaps(&policy, &means);
    if args.json {
        let fields = json!({
            "policy": policy.name,
            "armed": policy.armed,
            "rules": policy.rules.len(),
            "gaps": gaps,
            "means": means,
        });
        writeln!(out, "{fields}")?;
    } else {
        let armed = if policy.armed { "armed" } else { "dry run" };
        let rules = policy.rules.iter().map(|rule| format!("{:?}", rule.name)).collect::<Vec<_>>().join(", ");
        writeln!(out, "policy {} ({armed}) is right; its rules: {rules}", policy.name)?;
        match gaps.as_slice() {
            [] => writeln!(out, "this host can carry all of it out")?,
            _ => writeln!(out, "this host cannot carry all of it out:")?,
        }
        for gap in &gaps {
            writeln!(out, "  {gap}")?;
        }
    }
    Ok(if gaps.is_empty() { exit::OK } else { exit::HOST })
}
