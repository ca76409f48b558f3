//! Plays the agents of many hosts at a fleet's bus, as fast as the server takes it or as fast as asked, and measures.
//! `cargo xtask fleet` runs it.
//!
//! The messages are an agent's: its envelopes around its events. What is not played is what is before: kernels, spools.

use std::{
    collections::VecDeque,
    pin::Pin,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, context::PublishError, message::PublishMessage, publish::PublishAck};
use clap::Parser;
use septwatch::{
    collector::message::Messages,
    fleet::{
        self,
        connect::{Connect, Servers},
        envelope::{HostState, Number, Origin, Wrapper},
    },
    here::now_ns,
    model::{accounting::Balance, verdict::Verdict},
    source::event::Event,
    view::stack::Places,
};
use septwatch_common::{
    Violation,
    wire::{Header, Kind, TdLife, VERSION, ViolationEvent},
};
use zerocopy::FromZeros as _;

/// Plays the agents of many hosts at a fleet's bus.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Servers of the bus.
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    servers: Servers,
    /// Hosts.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    hosts: u32,
    /// Events a second of each host; 0: as many as the server takes.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// For so long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// One event in so many is a violation; 0: none is.
    #[arg(long, default_value_t = 1000)]
    violation: u64,
    /// Connections that the hosts share.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// Names begin with this.
    #[arg(long, default_value = "host")]
    name: String,
}

/// Messages of a connection that are under way at a time.
const WINDOW: usize = 4096;
/// CPUs of a host.
const CPUS: u16 = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    events: u64,
    violations: u64,
    stored: u64,
    repeated: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let begun = Instant::now();
    let threads: Vec<_> = (0..args.connections)
        .map(|at| {
            let args = args.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(play(&args, at))
            })
        })
        .collect();
    let mut sum = Sent::default();
    for thread in threads {
        let sent = thread.join().map_err(|_| anyhow::anyhow!("a thread died"))??;
        sum.events += sent.events;
        sum.violations += sent.violations;
        sum.stored += sent.stored;
        sum.repeated += sent.repeated;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rate = sum.stored as f64 / seconds;
    println!(
        "{} hosts, {} events, {} of them violations, {} stored, {} repeated, in {seconds:.1} s: {rate:.0} a second",
        args.hosts, sum.events, sum.violations, sum.stored, sum.repeated
    );
    ensure!(sum.stored == sum.events, "{} events were not stored", sum.events - sum.stored);
    Ok(())
}

/// A host, as far as it is played.
struct Host {
    origin: Origin,
    wrapper: Wrapper,
    seqs: [u64; CPUS as usize],
    violations: u64,
}

type Ack = Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>;

/// Plays every host whose turn it is at this connection.
async fn play(args: &Args, at: u32) -> Result<Sent> {
    let connect = Connect {
        servers: args.servers.clone(),
        credentials: None,
        ca: None,
        certificate: None,
        key: None,
        plaintext: false,
    };
    let client = connect.connect("septwatch fleet simulator", |_| ()).await?;
    let patience = Duration::from_secs(30);
    let context = jetstream::ContextBuilder::new()
        .timeout(patience)
        .ack_timeout(patience)
        .max_ack_inflight(WINDOW)
        .build(client);
    fleet::ensure(&context, Duration::from_secs(3600)).await.context("the streams")?;
    let boot = now_ns();
    let mut hosts = Vec::new();
    for host in (at..args.hosts).step_by(args.connections as usize) {
        let boot_id = format!("simulated-{boot}-{host}");
        let origin = Origin { host: format!("{}-{host}", args.name), boot_id, ledger: 1 };
        let wrapper = origin.wrapper()?;
        hosts.push(Host { origin, wrapper, seqs: [0; CPUS as usize], violations: 0 });
    }
    let (life, violation) = lines()?;
    let (begun, mut sent, mut under_way) = (Instant::now(), Sent::default(), VecDeque::<Ack>::new());
    let end = Duration::from_secs(args.seconds);
    let per_round = f64::from(args.rate) * hosts.len() as f64;
    let mut round = 0u64;
    while begun.elapsed() < end {
        for host in &mut hosts {
            let is_violation = args.violation != 0 && sent.events % args.violation == args.violation - 1;
            let (topic, line) = if is_violation { ("violation", &violation) } else { ("td", &life) };
            let cpu = (round % u64::from(CPUS)) as u16;
            let number = Number::Record { cpu, seq: host.seqs[usize::from(cpu)] };
            host.seqs[usize::from(cpu)] += 1;
            host.violations += u64::from(is_violation);
            let mut envelope = String::new();
            host.wrapper.wrap(number, line, &mut envelope);
            let message = PublishMessage::build().message_id(host.origin.id(number)).payload(envelope.into());
            let subject = fleet::event_subject(&host.origin.host, topic);
            under_way.push_back(Box::pin(context.send_publish(subject, message).await?.into_future()));
            sent.events += 1;
            sent.violations += u64::from(is_violation);
            if under_way.len() == WINDOW {
                take(under_way.pop_front(), &mut sent).await?;
            }
            if args.rate != 0 {
                let due = sent.events as f64 / per_round;
                let ahead = due - begun.elapsed().as_secs_f64();
                if ahead > 0.01 {
                    tokio::time::sleep(Duration::from_secs_f64(ahead)).await;
                }
            }
        }
        round += 1;
    }
    while let Some(ack) = under_way.pop_front() {
        take(Some(ack), &mut sent).await?;
    }
    for host in &hosts {
        let state = serde_json::to_vec(&state(host))?;
        let message = PublishMessage::build().payload(state.into());
        context.send_publish(fleet::host_subject(&host.origin.host), message).await?.await?;
    }
    Ok(sent)
}

async fn take(ack: Option<Ack>, sent: &mut Sent) -> Result<()> {
    if let Some(ack) = ack {
        let ack = ack.await?;
        sent.stored += 1;
        sent.repeated += u64::from(ack.duplicate);
    }
    Ok(())
}

/// An agent's lines: a stage of a TD's life, and a violation.
fn lines() -> Result<(String, String)> {
    let mut life = TdLife::new_zeroed();
    life.header = header(Kind::TdLife);
    (life.id, life.life, life.lent) = (7, septwatch_common::Life::Finalized as u8, 1 << 20);
    let mut found = ViolationEvent::new_zeroed();
    found.header = header(Kind::Violation);
    (found.violation, found.td_id, found.pfn) = (Violation::ZapFailed as u8, 7, 0x12_3456);
    let verdict = Verdict::of(&found).context("no verdict")?;
    let places = Places::nameless(&verdict);
    let messages = Messages::here();
    let life = messages.event(&Event::Life(life), None).context("no message")?;
    let found = messages.event(&Event::Violation(Box::new(found)), Some((&verdict, &places)));
    Ok((life.line.clone(), found.context("no message")?.line.clone()))
}

fn header(kind: Kind) -> Header {
    Header { time_ns: 5, seq: 0, tgid: 4711, cpu: 3, kind: kind as u8, version: VERSION }
}

fn state(host: &Host) -> HostState {
    let produced = host.seqs.iter().sum();
    HostState {
        origin: host.origin.clone(),
        wall_ns: now_ns(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: "simulated".to_owned(),
        tdx_module: None,
        source: "simulated".to_owned(),
        ended: false,
        tds: [("finalized".to_owned(), 1)].into(),
        lent_frames: 1 << 20,
        held_frames: 0,
        violations: [(Violation::ZapFailed.name().to_owned(), host.violations)].into(),
        suspect: 0,
        last_violation_ns: None,
        vital_records: Balance { produced, received: produced, earlier: 0, lost: 0 },
        hooks_missing: Vec::new(),
        policy: None,
        outputs: [].into(),
        rows: Vec::new(),
    }
}
