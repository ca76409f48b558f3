//! `septwatch policy status`: the agent's policy, whether it is armed, what is held.

use std::{io::Write, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    commands::exit,
    hooks::lock::RUN,
    policy::{
        control::{AskError, Request, ask},
        keeper::Keeper,
    },
};

/// Shows the policy of the agent that runs here, whether it may act, and what is held; without an agent, what is pinned.
///
/// Exit code 0, or 3 where the agent cannot be asked.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// Neither the agent nor the keeper can be asked.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let folder = Path::new(RUN);
    let status = match ask(folder, &Request::Status) {
        Err(AskError::NoAgent) => {
            eprintln!("septwatch: {}", AskError::NoAgent);
            json!({ "policy": null, "armed": false, "holds": Keeper::at(folder).list()? })
        }
        status => status?,
    };
    if args.json {
        writeln!(out, "{status}")?;
    } else {
        print(&status, out)?;
    }
    Ok(exit::OK)
}

fn print(status: &Value, out: &mut dyn Write) -> Result<()> {
    if let Some(policy) = status["policy"].as_str() {
        let armed = if status["armed"] == true { "armed" } else { "not armed: a dry run" };
        writeln!(out, "policy {policy}: {armed}")?;
        writeln!(out, "audit log {}", status["audit"].as_str().unwrap_or_default())?;
        writeln!(
            out,
            "{} notifications under way, {} dropped",
            status["notifies_in_flight"], status["notifies_dropped"]
        )?;
        if let Some(trouble) = status["keeper"].as_str() {
            writeln!(out, "what is held is not known for sure: {trouble}")?;
        }
    }
    let holds = status["holds"].as_array().map(Vec::as_slice).unwrap_or_default();
    if holds.is_empty() {
        writeln!(out, "nothing is held")?;
    }
    for hold in holds {
        writeln!(out, "{}", line(hold))?;
    }
    let reactions = status["latencies"].as_object();
    for (reaction, by) in reactions.into_iter().flatten() {
        for (by, of) in by.as_object().into_iter().flatten() {
            let [min, p50, p99, max] = ["min_ns", "p50_ns", "p99_ns", "max_ns"]
                .map(|key| crate::view::lines::span(of[key].as_u64().unwrap_or(0)));
            writeln!(out, "{reaction} by {by}: {}, min {min}, p50 {p50}, p99 {p99}, max {max}", of["count"])?;
        }
    }
    Ok(())
}

/// A hold, in one line.
pub fn line(hold: &Value) -> String {
    let why =
        hold["violation"].as_str().map_or_else(|| "ready: nothing has failed".to_owned(), str::to_owned);
    let inodes = hold["inodes"].as_array().map_or(0, Vec::len);
    let mut line =
        format!("TD {} of process {}: {why}; {inodes} guest_memfd pinned", hold["td"], hold["pid"]);
    if hold["frames"].as_u64().is_some_and(|frames| frames != 0) {
        line += &format!(", {} frames", hold["frames"]);
    }
    if hold["errno"].is_u64() {
        line += &format!("; fallocate refused {} times", hold["refused"]);
    }
    if hold["in_spite"].as_u64().is_some_and(|frames| frames != 0) {
        line += &format!("; {} frames came back all the same", hold["in_spite"]);
    }
    line
}
