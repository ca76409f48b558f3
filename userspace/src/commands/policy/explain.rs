//! `septwatch policy explain`

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use septwatch_common::{Leaf, Violation};

use super::{find, means};
use crate::{
    commands::exit,
    policy::{explain::explain, file::step},
};

/// Says what a policy would do about a violation: in order, by whom, and which of it acts before the page is back in the
/// allocator on this kernel.
///
/// Exit code 0: it is explained; 2: the policy, or a flag, is wrong; 3: the running kernel cannot be looked at.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A policy file, or the name of a shipped policy.
    policy: String,
    /// The violation, such as zap-failed.
    #[arg(long, value_name = "VIOLATION", value_parser = violation)]
    violation: Violation,
    /// The SEAMCALL that failed, such as remove, or TDH.MEM.PAGE.REMOVE.
    #[arg(long, value_name = "STEP", value_parser = step)]
    step: Option<Leaf>,
    /// On a kernel that is not running, from its BTF in DIR: files as for `septwatch doctor --btf`.
    #[arg(long, value_name = "DIR")]
    btf: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn violation(name: &str) -> Result<Violation, String> {
    let known = || format!("no violation: there are {}", Violation::ALL.map(Violation::name).join(", "));
    Violation::from_name(name).ok_or_else(known)
}

pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let policy = find(&args.policy)?;
    let means = match &args.btf {
        Some(dir) => means::of_btf(dir)?,
        None => means::of_host()?,
    };
    let explanation = explain(&policy, args.violation, args.step, &means);
    if args.json {
        serde_json::to_writer(&mut *out, &explanation)?;
        writeln!(out)?;
    } else {
        write!(out, "{explanation}")?;
    }
    Ok(exit::OK)
}
