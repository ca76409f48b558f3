//! What the ledger costs on hosts with more memory than this one: its real maps in the size of such a host, and its real
//! code in loops over them. `cargo xtask bench ledger` runs it.
//!
//! Prints a line of JSON for each figure: `what`, `unit`, `values` (one a round), and `limit` where it has one.
//!
//! `cargo run --release --example ledger-cost -- ROUNDS MEMORY_GIB`: at most so much is filled with chunks.

mod cases;
mod frames;
mod loops;
mod memory;

use std::{env, error::Error};

use frames::{DENSE, Frames, Host};
use loops::Loops;

/// Hosts, in TiB of memory.
const HOSTS: [u64; 2] = [1, 6];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut argument =
        || arguments.next().ok_or("arguments: ROUNDS MEMORY_GIB")?.map_err(Box::<dyn Error>::from);
    let (rounds, most_gib) = (argument()?, argument()?);
    for tib in HOSTS {
        let host = Host::of(tib, most_gib << 30);
        memory::idle(&host)?;
        let loops = Loops::load(&host)?;
        cases::nothing_lent(&host, &loops, rounds)?;
        let before = memory::Ledger::now()?;
        cases::lend(&host, &loops, "the first", &[Frames::dense(0, DENSE), host.lent()])?;
        cases::a_quarter_lent(&host, &loops, rounds)?;
        cases::lend(&host, &loops, "all the rest", &[host.rest()])?;
        memory::full(&host, &loops, &before)?;
        cases::lines(&host, &loops, rounds)?;
    }
    Ok(())
}

/// Tells a figure, as measured in each round.
fn tell(what: &str, unit: &str, values: &[f64], limit: Option<f64>) {
    println!("{}", serde_json::json!({ "what": what, "unit": unit, "values": values, "limit": limit }));
}
