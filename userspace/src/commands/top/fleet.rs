//! The hosts of a fleet: read from the bus on a thread of its own, and shown.

use std::{
    env,
    io::Write,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use crossterm::{
    event,
    terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate},
};

use super::{
    Args, exit,
    screen::picture::Picture,
    stderr::Stderr,
    terminal::{self, Terminal},
};
use crate::{
    commands::{BadInput, fleet::object, output},
    fleet::{
        connect::Connect,
        model::Fleet,
        stream::{self, Arrived, From, StreamError, Which},
    },
    here::now_ns,
    locked::lock,
    view::{
        fleet::{Effect, Reading, Ui, draw},
        top::config::Config,
    },
};

/// How often is drawn what came.
const FRAME: Duration = Duration::from_millis(250);
/// How often is looked whether there is something.
const LOOK: Duration = Duration::from_millis(20);

/// What the reading threads write.
#[derive(Debug, Default)]
struct Shared {
    fleet: Mutex<Fleet>,
    reading: Mutex<[Reading; 2]>,
    /// Reading cannot begin.
    failed: Mutex<Option<StreamError>>,
    quit: AtomicBool,
    /// The event that was asked for last, and its lines.
    fetched: Mutex<Option<(u64, Vec<String>)>>,
}

/// Shows a fleet, or prints it.
///
/// # Errors
/// The bus cannot be read, or there is no terminal.
pub fn run(connect: &Connect, args: &Args, config: &Config, out: &mut dyn Write) -> Result<u8> {
    let shown = if args.once || args.json {
        print(begin(connect, args)?, args, out)
    } else {
        terminal::check().map_err(|error| BadInput(error.to_string()))?;
        let stderr = Stderr::divert()?;
        let shown = begin(connect, args).and_then(|shared| show(connect, shared, args, config));
        drop(stderr);
        shown
    };
    let found = shown?;
    Ok(if found { exit::VIOLATION } else { exit::OK })
}

/// Starts to read both streams, how hosts stand first.
fn begin(connect: &Connect, args: &Args) -> Result<Arc<Shared>> {
    let shared = Arc::new(Shared::default());
    let readers = [(Which::Hosts, From::Start), (Which::Events, args.fleet.from())];
    for (at, (which, from)) in readers.into_iter().enumerate() {
        let (shared, connect) = (Arc::clone(&shared), connect.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("septwatch-fleet".to_owned()).spawn(move || {
            let take = |arrived: Arrived<'_>| shared.take(which, at, &arrived);
            if let Err(error) = runtime.block_on(stream::read(&connect, which, from, take)) {
                *lock(&shared.failed) = Some(error);
            }
        })?;
    }
    Ok(shared)
}

impl Shared {
    fn take(&self, which: Which, at: usize, arrived: &Arrived<'_>) -> ControlFlow<()> {
        match arrived {
            Arrived::Message { topic, seq, payload } => {
                let mut fleet = lock(&self.fleet);
                match which {
                    Which::Events => {
                        fleet.event(topic, *seq, payload);
                    }
                    Which::Hosts => fleet.state(payload),
                }
                lock(&self.reading)[at].trouble = None;
            }
            Arrived::CaughtUp => lock(&self.reading)[at].caught_up = true,
            Arrived::Trouble(error) => lock(&self.reading)[at].trouble = Some(error.to_string()),
        }
        match self.quit.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    /// Both streams as one.
    fn reading(&self) -> Reading {
        let [hosts, events] = lock(&self.reading).clone();
        Reading { caught_up: hosts.caught_up && events.caught_up, trouble: events.trouble.or(hosts.trouble) }
    }

    /// Why reading could not begin, if it could not.
    fn failed(&self) -> Result<()> {
        lock(&self.failed).take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Ends reading, and says whether a host has a violation.
    fn end(&self) -> bool {
        self.quit.store(true, Ordering::Relaxed);
        lock(&self.fleet).hosts.values().any(|host| host.found() != 0)
    }
}

/// Prints all hosts once all that was there is read; with --json and without --once, every second.
fn print(shared: Arc<Shared>, args: &Args, out: &mut dyn Write) -> Result<bool> {
    loop {
        while !shared.reading().caught_up {
            shared.failed()?;
            thread::sleep(LOOK);
        }
        {
            let fleet = lock(&shared.fleet);
            for (name, host, standing) in Ui::filtered(args.filter.as_deref()).hosts(&fleet, now_ns()) {
                match args.json {
                    true => writeln!(out, "{}", object(name, host, standing))?,
                    false => writeln!(
                        out,
                        "{:<32} {:<9} {:>8} violations {:>8} suspect {:>10} events {:>6} missing",
                        output::plain(name),
                        standing.name(),
                        host.found(),
                        host.suspect,
                        host.events,
                        host.missing()
                    )?,
                }
            }
        }
        out.flush()?;
        if args.once {
            return Ok(shared.end());
        }
        thread::sleep(Duration::from_secs(1));
        shared.failed()?;
    }
}

/// Shows it until somebody leaves.
fn show(connect: &Connect, shared: Arc<Shared>, args: &Args, config: &Config) -> Result<bool> {
    let picture = Picture::new(config, |name| env::var(name).ok());
    let mut ui = Ui::filtered(args.filter.as_deref());
    let mut terminal = Terminal::take(false)?;
    let mut due = Instant::now();
    while !terminal.ended() {
        shared.failed()?;
        if terminal.continued()? || Instant::now() >= due {
            due = Instant::now() + FRAME;
            if let Some((seq, lines)) = lock(&shared.fetched).take() {
                ui.fetched(seq, lines);
            }
            let reading = shared.reading();
            let screen = &mut terminal.screen;
            crossterm::queue!(screen.backend_mut(), BeginSynchronizedUpdate)?;
            screen.draw(|frame| {
                draw(frame, &lock(&shared.fleet), &reading, &mut ui, &picture.look, now_ns())
            })?;
            crossterm::queue!(screen.backend_mut(), EndSynchronizedUpdate)?;
            screen.backend_mut().flush()?;
        }
        if !event::poll(due.saturating_duration_since(Instant::now()))? {
            continue;
        }
        // What a key did is seen at once.
        due = Instant::now();
        let effect = match event::read()? {
            event::Event::Key(key) => ui.key(key, &lock(&shared.fleet), now_ns()),
            event::Event::Paste(text) => {
                ui.paste(&text);
                Effect::None
            }
            _ => Effect::None,
        };
        match effect {
            Effect::None => {}
            Effect::Quit => break,
            Effect::Suspend => terminal.suspend()?,
            Effect::Redraw => terminal.clear()?,
            Effect::Fetch(seq) => fetch(connect, &shared, seq)?,
        }
    }
    Ok(shared.end())
}

/// Fetches an event on a thread of its own.
fn fetch(connect: &Connect, shared: &Arc<Shared>, seq: u64) -> Result<()> {
    let (connect, shared) = (connect.clone(), Arc::clone(shared));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("septwatch-fetch".to_owned()).spawn(move || {
        let lines = match runtime.block_on(stream::fetch(&connect, seq)) {
            Ok(payload) => lines(&payload),
            Err(error) => vec![error.to_string()],
        };
        *lock(&shared.fetched) = Some((seq, lines));
    })?;
    Ok(())
}

/// A message as a person reads it.
fn lines(payload: &[u8]) -> Vec<String> {
    let text = match serde_json::from_slice::<serde_json::Value>(payload) {
        Ok(value) => serde_json::to_string_pretty(&value).unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(payload).into_owned(),
    };
    text.lines().map(str::to_owned).collect()
}
