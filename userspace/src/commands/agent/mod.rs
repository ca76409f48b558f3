//! `septwatch agent`: the service. It watches this host, follows a policy, and tells others what it sees.
//!
//! The thread that watches never waits for anybody: it hands events to [`crate::collector`]'s outputs, and puts down every
//! second how the host stands.

mod demo;
mod health;
mod settings;
mod systemd;
mod watched;

use std::{
    fs::DirBuilder,
    io::Write,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    BadInput, Policing, Watching, exit,
    live::{Live, Signals, Until},
    recording,
    storms::Storming,
    watching::{is_ledger, is_ring, span},
};
use crate::{
    collector::{
        bus::{Bus, spool},
        http::{Access, Listen, Server},
        journal::{self, Journal},
        jsonl::{JsonLines, Target},
        metrics::{About, Metrics},
        otlp::{self, Otlp},
        outlet::Outlet,
        snapshot::Shared,
    },
    confine::{
        self, Kept,
        writes::{self, Writes},
    },
    fleet::{connect::Connect, envelope::Origin},
    here,
    policy::file::Policy,
};
use health::Health;
use settings::{BusSettings, Given, Settings};
use watched::Watched;

/// Watches this host as a service: keeps the ledger, follows a policy, and serves metrics, health and events.
///
/// Every setting is a flag, an environment variable and a key of the configuration file, in that order.
///
/// Exit code 0: it was told to end; 2: the configuration is wrong; 3: this host cannot be watched.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Watch a demonstration instead of this host: storm after storm of mistakes on a software TDX module.
    #[arg(long, conflicts_with = "policy")]
    pub demo: bool,
    /// What the demo does.
    #[command(flatten)]
    pub storming: Storming,
    /// End after this time, such as 90s or 5m.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub duration: Option<Duration>,
    /// The configuration file. Without it /etc/septwatch/agent.toml, if there is one.
    #[arg(long, value_name = "FILE", env = "SEPTWATCH_CONFIG")]
    pub config: Option<PathBuf>,
    /// Check the configuration, and what it refers to, and end.
    #[arg(long)]
    pub check_config: bool,
    /// Print the configuration as it is with all that is given, each setting with its text, and end.
    #[arg(long)]
    pub print_config: bool,
    /// List the capabilities that the agent keeps while it runs, and what for, and end.
    #[arg(long)]
    pub privileges: bool,
    /// Settings.
    #[command(flatten)]
    pub given: Given,
}

/// How long outputs have at the end for what waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, this host cannot be watched, or an address cannot be listened on.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let settings = Settings::settle(args.given.clone(), args.config.as_deref());
    let settings = settings.map_err(|error| BadInput(error.to_string()))?;
    if args.print_config {
        write!(out, "{}", settings.print())?;
        return Ok(exit::OK);
    }
    let policy = check(&settings)?;
    if args.privileges {
        for need in confine::needed(policy.as_ref()) {
            writeln!(out, "{:<20} {:<12} {}", need.name, need.feature, need.purpose)?;
        }
        return Ok(exit::OK);
    }
    if args.check_config {
        writeln!(out, "the configuration is good")?;
        return Ok(exit::OK);
    }
    match args.demo {
        true => demo::run(args, &settings)?,
        false => live(args, &settings)?,
    }
    Ok(exit::OK)
}

fn wrong(setting: &str, what: impl std::fmt::Display) -> BadInput {
    BadInput(format!("the setting {setting}: {what}"))
}

/// What can be said of the configuration before anything is attached; and the policy.
fn check(settings: &Settings) -> Result<Option<Policy>> {
    let Settings { ledger, policy, metrics, events, journal, bus, otlp, .. } = settings;
    if ledger.limit.0.is_some_and(|limit| !is_ledger(limit.0)) {
        return Err(wrong("ledger.limit", "less than 4K, which has no room for a single frame").into());
    }
    if ledger.ring.0.is_some_and(|ring| !u32::try_from(ring.0).is_ok_and(is_ring)) {
        return Err(wrong("ledger.ring", "not a power of two from 4K to 1G").into());
    }
    let spans = Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 60 * 60);
    if ledger.audit_every.0.is_some_and(|every| !spans.contains(&every.0)) {
        return Err(wrong("ledger.audit_every", "not from 1m to 168h").into());
    }
    if !(1..=100).contains(&ledger.audit_percent) {
        return Err(wrong("ledger.audit_percent", "not from 1 to 100").into());
    }
    let queues =
        [("events.queue", events.queue), ("journal.queue", journal.queue), ("otlp.queue", otlp.queue)];
    for (setting, queue) in queues {
        if !(1..=1 << 20).contains(&queue) {
            return Err(wrong(setting, "not from 1 to 1048576").into());
        }
    }
    let longest = Duration::from_secs(60 * 60);
    for (setting, time) in [("otlp.interval", otlp.interval), ("otlp.timeout", otlp.timeout)] {
        if !(Duration::from_millis(100)..=longest).contains(&time.0) {
            return Err(wrong(setting, "not from 100ms to 1h").into());
        }
    }
    if let Some(config) = collector(settings) {
        Otlp::check(&config).map_err(|error| BadInput(error.to_string()))?;
    }
    if events.keep > 1000 {
        return Err(wrong("events.keep", "more than 1000").into());
    }
    let policy = match &policy.name.0 {
        Some(name) => Some(Policy::find(name).map_err(|error| wrong("policy.name", error))?),
        None if policy.arm => {
            return Err(wrong("policy.arm", "there is no policy to arm: policy.name").into());
        }
        None => None,
    };
    if bus.spool_bytes.0 < spool::SMALLEST {
        return Err(wrong("bus.spool_bytes", "less than 64K").into());
    }
    if bus.host.0.as_ref().is_some_and(|host| !(1..=253).contains(&host.chars().count())) {
        return Err(wrong("bus.host", "not of 1 to 253 characters").into());
    }
    if let Some(connect) = connect(bus) {
        connect.check().map_err(|error| wrong("bus", error))?;
    }
    if let Some(listen) = &metrics.listen.0 {
        let access = access(settings);
        access.check(listen).and_then(|()| access.read()).map_err(|error| BadInput(error.to_string()))?;
    }
    Ok(policy)
}

/// Gives up what is no longer needed with this policy. Threads that are started from now on have no more.
fn confined(settings: &Settings, policy: Option<&Policy>) -> Result<Option<Kept>> {
    if !settings.privileges.confine {
        return Ok(None);
    }
    let needs = confine::needed(policy);
    let kept = confine::confine(&needs)?;
    for need in kept.lacks(&needs) {
        let told = format!(
            "{} needs {}, which this process was not given: {}",
            need.feature, need.name, need.purpose
        );
        match policy.is_some() && !settings.policy.allow_degraded && need.feature != "observe" {
            true => bail!("{told}; the setting policy.allow_degraded goes on without"),
            false => eprintln!("septwatch: {told}"),
        }
    }
    eprintln!("septwatch: confined: of all capabilities it keeps {}", kept.names().join(", "));
    match writes::restrict(policy, &written(settings))? {
        Writes::Restricted => {}
        Writes::NoLandlock => {
            eprintln!("septwatch: this kernel has no Landlock: where it writes is not restricted")
        }
        Writes::RunsPrograms => {
            eprintln!("septwatch: the policy runs programs: where they and it write is not restricted");
        }
    }
    Ok(Some(kept))
}

/// Folders that are written to as it is configured. Later nobody could make them.
fn written(settings: &Settings) -> Vec<PathBuf> {
    let Settings { policy, metrics, events, bus, .. } = settings;
    let mut folders = Vec::new();
    let own =
        [policy.name.0.is_some().then_some(&policy.audit), bus.servers.0.is_some().then_some(&bus.spool)];
    for folder in own.into_iter().flatten() {
        // Whoever uses it says what is wrong.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        folders.push(folder.clone());
    }
    let socket = match &metrics.listen.0 {
        Some(Listen::Unix(path)) => Some(path),
        _ => None,
    };
    let files = [events.file.0.as_ref(), socket].into_iter().flatten();
    folders.extend(files.map(|file| match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }));
    folders
}

fn access(settings: &Settings) -> Access {
    let metrics = &settings.metrics;
    Access {
        tls_certificate: metrics.tls_certificate.0.clone(),
        tls_key: metrics.tls_key.0.clone(),
        client_ca: metrics.client_ca.0.clone(),
        token_file: metrics.token_file.0.clone(),
    }
}

/// How the bus is reached; none: there is none.
fn connect(bus: &BusSettings) -> Option<Connect> {
    Some(Connect {
        servers: bus.servers.0.clone()?,
        credentials: bus.credentials.0.clone(),
        ca: bus.ca.0.clone(),
        certificate: bus.certificate.0.clone(),
        key: bus.key.0.clone(),
        plaintext: bus.plaintext,
    })
}

/// Where this host's events come from.
fn origin(bus: &BusSettings, ledger: u32) -> Result<Origin> {
    let host = bus.host.0.clone().unwrap_or_else(here::name);
    let boot_id = here::boot_id().context("the id of this boot")?;
    Ok(Origin { host, boot_id, ledger })
}

/// What is configured of an OpenTelemetry collector, where there is one.
fn collector(settings: &Settings) -> Option<otlp::Config> {
    let otlp = &settings.otlp;
    Some(otlp::Config {
        endpoint: otlp.endpoint.0.clone()?,
        protocol: otlp.protocol,
        ca: otlp.ca.0.clone(),
        headers_file: otlp.headers_file.0.clone(),
        interval: otlp.interval.0,
        timeout: otlp.timeout.0,
        queue: otlp.queue as usize,
    })
}

/// Everything that others are told by.
struct Collecting {
    shared: Arc<Shared>,
    outlets: Vec<Outlet>,
    bus: Option<Bus>,
    /// Files of outputs are to be opened again by their paths.
    reopen: Arc<AtomicBool>,
    server: Option<Server>,
    otlp: Option<Otlp>,
}

impl Collecting {
    /// Begins; `ledger`: its number, where there is one kept.
    fn begin(settings: &Settings, source: &'static str, ledger: u32) -> Result<Self> {
        let Settings { events, journal, metrics, bus, .. } = settings;
        let (shared, reopen) = (Arc::new(Shared::default()), Arc::new(AtomicBool::new(false)));
        let mut outlets = Vec::new();
        if let Some(path) = &events.file.0 {
            let target = match path.as_os_str() == "-" {
                true => Target::Stdout,
                false => {
                    Target::File { path: path.clone(), rotate_bytes: events.rotate.0, keep: events.keep }
                }
            };
            let lines = JsonLines::begin(target, Arc::clone(&reopen));
            let lines =
                lines.map_err(|error| wrong("events.file", format_args!("{}: {error}", path.display())))?;
            outlets.push(Outlet::begin("events", events.queue as usize, lines)?);
        }
        let socket = PathBuf::from(journal::SOCKET);
        if journal.enabled && socket.exists() {
            outlets.push(Outlet::begin("journal", journal.queue as usize, Journal::at(socket))?);
        }
        let kernel = recording::running_kernel();
        let about = About { kernel: kernel.release, tdx_module: kernel.tdx_module, source };
        let otlp = match collector(settings) {
            None => None,
            Some(config) => {
                let begun = Otlp::begin(&config, &shared, &about);
                let (otlp, of_otlp) =
                    begun.with_context(|| format!("the setting otlp.endpoint: {}", config.endpoint))?;
                outlets.extend(of_otlp);
                Some(otlp)
            }
        };
        for outlet in &outlets {
            shared.output(outlet.name(), outlet.counts());
        }
        let bus = match connect(bus) {
            None => None,
            Some(connect) => {
                let (spool, from) = ((&*bus.spool, bus.spool_bytes.0), origin(bus, ledger)?);
                let begun = Bus::begin(connect, bus.history.0, spool, from, &shared, &about);
                Some(begun.map_err(|error| wrong("bus.spool", error))?)
            }
        };
        let server = match &metrics.listen.0 {
            None => None,
            Some(listen) => {
                let pages = Health::new(Metrics::new(Arc::clone(&shared), about), Arc::clone(&shared));
                let server = Server::begin(listen, access(settings), Arc::new(pages));
                let server = server.with_context(|| format!("the setting metrics.listen: {listen}"))?;
                shared.serves(server.clients());
                for address in server.addresses() {
                    eprintln!("septwatch: metrics at {address}");
                }
                Some(server)
            }
        };
        Ok(Self { shared, outlets, bus, reopen, server, otlp })
    }

    /// The configuration is to be read again, as far as that is possible while it is at work: certificates, the token,
    /// files.
    fn reload(&mut self) {
        self.reopen.store(true, std::sync::atomic::Ordering::Release);
        if let Some(otlp) = &self.otlp {
            otlp.reload();
        }
        if let Some(server) = &self.server
            && let Err(error) = server.reload()
        {
            eprintln!("septwatch: certificates and token stay as they were: {error}");
        }
    }

    fn end(mut self) {
        // All at once: one that does not end takes no other's time.
        self.outlets.iter_mut().for_each(Outlet::close);
        self.bus.iter().for_each(Bus::close);
        let begun = Instant::now();
        let left = || PATIENCE.saturating_sub(begun.elapsed());
        self.outlets.iter_mut().for_each(|outlet| outlet.end(left()));
        self.bus.iter_mut().for_each(|bus| bus.end(left()));
        drop(self.server);
    }
}

fn watching(settings: &Settings) -> Watching {
    Watching {
        ledger_limit: settings.ledger.limit.0.map(|limit| limit.0),
        bpf_log: None,
        // It is at most 1 GiB.
        ring_bytes: settings.ledger.ring.0.map(|ring| ring.0 as u32),
        latency: settings.ledger.latency,
        rest: settings.ledger.rest.clone(),
        walk_delay: 0,
        no_resync: !settings.ledger.resync,
    }
}

fn live(args: &Args, settings: &Settings) -> Result<()> {
    let watching = watching(settings);
    let options = watching.options();
    let policing = Policing {
        policy: settings.policy.name.0.clone(),
        arm: settings.policy.arm,
        allow_degraded: settings.policy.allow_degraded,
        audit: settings.policy.audit.clone(),
    };
    let mut live =
        Live::begin_confined("agent", &watching, &policing, &options, options.latency, |policy| {
            confined(settings, policy)
        })?;
    let (hooks, _) = recording::of_opened(&live.opened);
    if let Some(every) = settings.ledger.audit_every.0
        && let Err(error) = live.session.audit_every(every.0, settings.ledger.audit_percent)
    {
        eprintln!("septwatch: the setting ledger.audit_every: {}", super::told(&error));
    }
    let collecting = Collecting::begin(settings, "live", live.session.kernel().ledger_id()?)?;
    let mut watched = Watched::begin(collecting, hooks, settings.metrics.tds as usize);
    let signals = Some(live.runtime.block_on(async { Signals::caught() })?);
    watched.ready(&mut live.session, live.guard.as_mut())?;
    let mut until = Until { duration: args.duration, reloads: true, signals, ..Until::default() };
    let ended = live.follow(&mut until, &mut watched);
    watched.end(&mut live.session, live.guard.as_mut());
    live.end(settings.ledger.keep)?;
    ended?;
    Ok(())
}
