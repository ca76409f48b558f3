//! What it costs to load the programs. The kernel's verifier follows every path of every program; a careless branch
//! multiplies them, and an emulated machine then waits for minutes.

use septwatch_tests::{
    septwatch,
    support::{bpf::verified, output::scenario, process::Run},
};

/// Instructions that the verifier may follow, over all programs. On Linux 6.18 it follows 87,000: what is at hand of a TD
/// gives each program more ways to go, the usual of which is short.
const BOUND: u32 = 95_000;

/// Programs that the demo loads: one at entry, sixteen at return, two at releases, one at allocations.
const PROGRAMS: usize = 20;

#[test]
fn loading_is_cheap_for_the_verifier() {
    let septwatch = septwatch!();
    let plain = ["demo", "storm", "--seed", "7", "--json"];
    // To measure is one store more for each program: their number is the same.
    for arguments in [&plain[..], &[&plain[..], &["--latency"]].concat()] {
        let running = Run::new(&septwatch, arguments).start_acting();
        let verified = verified(running.pid());
        scenario(&running.finish().exits(0)).is_as_expected();
        assert!(verified.len() >= PROGRAMS, "{verified:?}");
        let total: u32 = verified.iter().map(|(_, instructions)| instructions).sum();
        eprintln!("{total} instructions in {} programs", verified.len());
        assert!(total <= BOUND, "{total} instructions, more than {BOUND}: {verified:?}");
    }
}
