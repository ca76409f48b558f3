//! `septwatch top`: the live view. Here are its sources, each on a thread of its own; what is on the screen is in
//! [`crate::view::top`].

mod census;
mod costs;
mod demo;
mod feed;
mod fleet;
mod history;
mod kept;
mod live;
mod once;
mod policy;
mod recorded;
mod recorder;
mod screen;
mod stage;
mod stderr;
mod terminal;
mod travel;
mod watched;

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::Receiver},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::{
    BadInput, Policing, Watching, exit, fleet::OfFleet, recording, storms::Storming, watching::span,
};
use crate::{
    here,
    hooks::table::{HookSpec, Need},
    recording::header::HookFact,
    source::open::OpenError,
    view::top::{
        config::{self, Config},
        filter::Filter,
        palette::Theme,
        scene::{self, About, Ask, HookRow, Phase, Scene},
        ui::View,
    },
};
use feed::Feed;
use stderr::{Lines, Stderr};

/// How long the screen waits for what fails at once.
const AT_ONCE: Duration = Duration::from_millis(60);

/// Shows what happens on this host, live: TDs, violations, SEAMCALLs, hooks and policy. With FILE a recording, at any
/// moment of it; with --demo a storm on a software TDX module, on any host; with --fleet all hosts whose agents send to a
/// bus.
///
/// Exit code 0: nothing wrong was seen, or it was the demo; 1: a violation was found; 2: FILE cannot be read; 3: this host
/// cannot be watched.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A recording to show instead of this host.
    #[arg(conflicts_with = "fleet")]
    pub file: Option<PathBuf>,
    /// Watch a demonstration: storm after storm of mistakes on a software TDX module.
    #[arg(long, conflicts_with_all = ["file", "policy", "fleet"])]
    pub demo: bool,
    /// What the demo does.
    #[command(flatten)]
    pub storming: Storming,
    /// Begin at this time after the recording's begin, such as 90s or 1500ms.
    #[arg(long, value_name = "TIME", value_parser = span, requires = "file")]
    pub at: Option<Duration>,
    /// Look, keys and layout: a file as --print-config prints one. Without it: septwatch/top.toml in $XDG_CONFIG_HOME, or in
    /// ~/.config.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print a configuration file with every default, and end.
    #[arg(long)]
    pub print_config: bool,
    /// Draw with ASCII characters only.
    #[arg(long)]
    pub ascii: bool,
    /// Colours: for any background, for a dark or a light one, or none.
    #[arg(long, value_enum)]
    pub theme: Option<Theme>,
    /// The view that is shown first, or whose data are printed.
    #[arg(long, value_enum)]
    pub view: Option<View>,
    /// Show only rows of that view's table that fit, such as `td=web* violation!=map-failed`.
    #[arg(long, value_name = "EXPRESSION")]
    pub filter: Option<String>,
    /// Print the view once, as text, and end: for scripts, and without a terminal.
    #[arg(long)]
    pub once: bool,
    /// Print the view's data as one JSON object a line, every second; with --once, or of a recording, one. Sizes are in
    /// bytes, spans in ns.
    #[arg(long)]
    pub json: bool,
    /// How long to watch before the first is printed.
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "2s")]
    pub after: Duration,
    /// Cost less: no record of every SEAMCALL, and so no latencies, no rates and statuses of single TDs, and no life of
    /// a frame before its violation.
    #[arg(long)]
    pub light: bool,
    /// Show a fleet instead of this host: all of its hosts, the worst first, and behind each its violations and TDs.
    #[command(flatten)]
    pub fleet: OfFleet,
    /// What is done about violations.
    #[command(flatten)]
    pub policing: Policing,
    /// What watches.
    #[command(flatten)]
    pub watching: Watching,
}

/// Runs the command.
///
/// # Errors
/// There is nothing to show, or it cannot be shown.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    if args.print_config {
        write!(out, "{}", config::template())?;
        return Ok(exit::OK);
    }
    if let Some(connect) = args.fleet.connect()? {
        let file = args.config.clone();
        return fleet::run(&connect, args, &configured(args, file.as_deref())?, out);
    }
    let file = args.config.clone().or_else(|| config::path(|name| env::var(name).ok()));
    let config = configured(args, file.as_deref())?;
    let total = if args.once || args.json {
        let (feed, source) = begin(args, None)?;
        let shown = once::print(args, &config, &feed, out);
        end(&feed, source, shown)?
    } else {
        // Before anything is attached.
        terminal::check().map_err(|error| BadInput(error.to_string()))?;
        let stderr = Stderr::divert()?;
        let (feed, source) = begin(args, Some(stderr.lines()))?;
        // What fails at once says so without a screen that comes and goes.
        let begun = Instant::now();
        while matches!(feed.latest().about.phase, Phase::Starting(_))
            && !feed.has_ended()
            && begun.elapsed() < AT_ONCE
        {
            thread::sleep(Duration::from_millis(2));
        }
        let shown = match feed.has_ended() {
            true => Ok(()),
            false => screen::show(&*feed, config.ui(), &config, file.as_deref()),
        };
        drop(stderr);
        end(&feed, source, shown.map_err(Into::into))?
    };
    Ok(if total == 0 { exit::OK } else { exit::VIOLATION })
}

type Source = JoinHandle<Result<u64>>;

/// Starts the source.
fn begin(args: &Args, lines: Option<Lines>) -> Result<(Arc<Feed>, Source)> {
    let (feed, asks) = Feed::new(starting(args), lines);
    let source = thread::Builder::new().name("septwatch-source".to_owned()).spawn({
        let (args, feed) = (args.clone(), Arc::clone(&feed));
        move || {
            let ended = source(&args, &feed, asks);
            feed.end();
            ended
        }
    })?;
    Ok((feed, source))
}

/// Ends the source, and says how many violations there were.
fn end(feed: &Feed, source: Source, shown: Result<()>) -> Result<u64> {
    feed.quit();
    let ended = source.join().map_err(|_| anyhow!("what was watched ended with a panic"))?;
    shown?;
    ended
}

/// What is configured, by the file and by flags.
fn configured(args: &Args, file: Option<&Path>) -> Result<Config> {
    let mut config = match file {
        Some(file) if args.config.is_some() && !file.exists() => {
            let what = format!("--config {}: no such file; --print-config prints one", file.display());
            return Err(BadInput(what).into());
        }
        Some(file) => Config::read(file).map_err(|error| BadInput(error.to_string()))?,
        None => Config::default(),
    };
    config.view = args.view.unwrap_or(config.view);
    config.ascii = args.ascii.then_some(true).or(config.ascii);
    config.theme = args.theme.or(config.theme);
    if let Some(text) = &args.filter {
        let filter = Filter::parse(text, config.view);
        let filter = filter.map_err(|error| BadInput(format!("--filter {text}: {error}")))?;
        config.tables.entry(config.view).or_default().filter = filter;
    }
    Ok(config)
}

/// Before there is anything to show.
fn starting(args: &Args) -> Scene {
    let (source, doing) = match &args.file {
        Some(file) => (scene::Source::Recording(file.display().to_string()), "opening the recording"),
        None if args.demo => (scene::Source::Demo("storm".to_owned()), "attaching to the demo's functions"),
        None => (scene::Source::Live, "attaching to the kernel's functions"),
    };
    let mut about = about_here(source, args.light);
    about.phase = Phase::Starting(doing.to_owned());
    Scene { about, ..Scene::default() }
}

fn source(args: &Args, feed: &Feed, asks: Receiver<Ask>) -> Result<u64> {
    match &args.file {
        Some(file) => recorded::run(file, args.at, feed, asks),
        None if args.demo => demo::run(args, feed, asks),
        None => live::run(args, feed, asks).map_err(instead),
    }
}

/// What somebody can look at where this host has nothing to watch.
fn instead(error: anyhow::Error) -> anyhow::Error {
    let nothing = match error.downcast_ref() {
        Some(OpenError::Hooks { missing, of }) => {
            let missing = missing.len();
            format!(
                "this kernel has no TDX to watch ({missing} of {of} hooks that every verdict needs are missing, `septwatch doctor` says why)"
            )
        }
        _ => return error,
    };
    anyhow!(
        "{nothing}; `septwatch top --demo` shows it at work on any host, and `septwatch top FILE` a recording"
    )
}

/// What is known of this host.
fn about_here(source: scene::Source, light: bool) -> About {
    let kernel = recording::running_kernel();
    About {
        source,
        kernel: kernel.release,
        tdx_module: kernel.tdx_module,
        hostname: here::name(),
        no_calls: light.then_some("--light: SEAMCALLs are only counted"),
        ..About::default()
    }
}

/// The first scene of a source whose hooks are known: those that are missing make its verdict degraded.
fn planned(about: About, plan: &[HookFact]) -> Scene {
    let mut scene = Scene { about, hooks: Arc::new(hook_rows(plan)), ..Scene::default() };
    for row in scene.hooks.iter().filter(|row| row.missing.is_some()) {
        scene.host.degraded.push(format!("no {}", row.name));
    }
    scene
}

/// The rows of a plan.
fn hook_rows(plan: &[HookFact]) -> Vec<HookRow> {
    let row = |fact: &HookFact| {
        let spec = HookSpec::named(&fact.name);
        HookRow {
            name: fact.name.clone(),
            purpose: spec.map_or("", |spec| spec.purpose),
            bound: fact.bound.clone(),
            missing: fact.missing.clone(),
            lost: spec.map(|spec| spec.lost.to_vec()).unwrap_or_default(),
            required: spec.is_some_and(|spec| spec.need == Need::Required),
        }
    };
    plan.iter().map(row).collect()
}
