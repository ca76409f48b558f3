//! The demo behind an agent: everything but the source is real.

use anyhow::Result;

use super::{Args, Collecting, Settings, confined, watched::Watched, watching};
use crate::{
    commands::{
        live::{self, Signals, Until},
        recording,
        storms::Storms,
    },
    hooks::lock::Lock,
    source::{demo::module, open, session::Session},
    view::stack::KernelSymbols,
};

/// Watches the demo until it is told to end.
///
/// # Errors
/// This host cannot.
pub fn run(args: &Args, settings: &Settings) -> Result<()> {
    open::check_capabilities()?;
    let _lock = Lock::take("agent --demo")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watching = watching(settings);
    let options = watching.options();
    let (mut kernel, config) = open::demo(module::Shape::V7_3, &options, None)?;
    kernel.record_pages(options.latency)?;
    let mut session = Session::new(kernel)?;
    session.rest_after(watching.rest());
    let signals = Some(runtime.block_on(async { Signals::caught() })?);
    // The demo's VMM is a thread that reads frame numbers, and keeps what that needs.
    let storms = Storms::begin(config, args.storming)?;
    // Later there are no addresses for this process.
    let symbols = KernelSymbols::running().into();
    confined(settings, None)?;
    let collecting = Collecting::begin(settings, "demo", session.kernel().ledger_id()?)?;
    let mut watched = Watched::begin(collecting, recording::demo_hooks(), settings.metrics.tds as usize);
    watched.ready(&mut session, None)?;
    let mut until = Until { duration: args.duration, reloads: true, signals, ..Until::default() };
    let ended = runtime.block_on(live::follow(&mut session, &symbols, None, &mut until, &mut watched));
    let stormed = storms.end();
    watched.end(&mut session, None);
    ended?;
    stormed
}
