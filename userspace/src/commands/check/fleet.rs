//! What the hosts of a fleet sent: the newest state of each, and all events that the stream has, or those of a while.

use std::{io::Write, ops::ControlFlow};

use anyhow::Result;

use super::Args;
use crate::{
    commands::{
        exit,
        fleet::{fails, object, violations},
        output::plain,
    },
    fleet::{
        connect::Connect,
        model::{Fleet, Host, Standing},
        stream::{Arrived, From, StreamError, Which, read},
    },
    here,
};

/// Reads both streams, and says what is wrong.
///
/// # Errors
/// They cannot be read.
pub fn run(connect: &Connect, args: &Args, out: &mut dyn Write) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut fleet = Fleet::default();
    runtime.block_on(whole(connect, Which::Hosts, From::Start, |_, _, payload| fleet.state(payload)))?;
    let event = |topic: &str, seq: u64, payload: &[u8]| {
        fleet.event(topic, seq, payload);
    };
    runtime.block_on(whole(connect, Which::Events, args.fleet.from(), event))?;
    let mut failed = 0;
    let hosts = fleet.worst_first(here::now_ns());
    for (name, host, standing) in &hosts {
        failed += usize::from(fails(*standing));
        match args.json {
            true => writeln!(out, "{}", object(name, host, *standing))?,
            false => writeln!(out, "{}", line(name, host, *standing))?,
        }
    }
    if !args.json {
        let foreign = match fleet.foreign {
            0 => String::new(),
            foreign => format!("; {foreign} messages are of no septwatch that this one knows"),
        };
        writeln!(out, "{} hosts, {failed} failed{foreign}", hosts.len())?;
    }
    Ok(if failed == 0 { exit::OK } else { exit::VIOLATION })
}

/// Reads all that a stream has.
async fn whole(
    connect: &Connect,
    which: Which,
    from: From,
    mut take: impl FnMut(&str, u64, &[u8]),
) -> Result<(), StreamError> {
    read(connect, which, from, |arrived| match arrived {
        Arrived::Message { topic, seq, payload } => {
            take(topic, seq, payload);
            ControlFlow::Continue(())
        }
        Arrived::CaughtUp => ControlFlow::Break(()),
        Arrived::Trouble(error) => {
            eprintln!("septwatch: {error}: it is tried again");
            ControlFlow::Continue(())
        }
    })
    .await
}

fn line(name: &str, host: &Host, standing: Standing) -> String {
    let mut line = format!(
        "{} {}: {}; {} events, {} violations, {} suspect, {} missing",
        if fails(standing) { "FAIL" } else { "PASS" },
        plain(name),
        standing.name(),
        host.events,
        host.found(),
        host.suspect,
        host.missing(),
    );
    for (violation, count) in violations(host) {
        line = format!("{line}\n    {count} {violation}");
    }
    line
}
