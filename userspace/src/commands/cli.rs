//! The command line, whole: what is parsed, completed and described in man pages is this.

use clap::Parser;

use super::{
    agent, audit, check, completions, demo, diff, doctor, explain, export, hold_keeper, man, minimize,
    policy, record, replay, report, top, watch,
};

/// Watches the physical pages that this host lends to the Intel TDX module, and says so the moment one of them is given
/// back while a trust domain (TD) still maps it.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// What is to be done.
#[derive(Debug, clap::Subcommand)]
#[expect(missing_docs, reason = "what each is for stands at its arguments")]
pub enum Command {
    Top(top::Args),
    Agent(Box<agent::Args>),
    Demo(demo::Args),
    /// The demo's VMM, for the demo alone.
    #[command(hide = true)]
    DemoStandIn,
    Watch(watch::Args),
    Record(record::Args),
    Replay(replay::Args),
    Check(check::Args),
    Diff(diff::Args),
    Export(export::Args),
    Minimize(minimize::Args),
    Report(report::Args),
    Policy(policy::Args),
    Audit(audit::Args),
    Doctor(doctor::Args),
    Explain(explain::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    HoldKeeper(hold_keeper::Args),
}
