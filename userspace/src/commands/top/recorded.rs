//! A recording behind the screen: read to its end once, then shown as it was at any moment.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    feed::Feed,
    history::{History, Totals},
    planned,
    stage::{Facts, Names, Records, Stage},
};
use crate::{
    commands::recording,
    model::{activity::Calls, census::Census},
    recording::{
        header::{Header, Note, Origin, What},
        reader::Got,
        replay::Replay,
    },
    view::top::scene::{About, Ask, Phase, Scene, Source},
};

/// How often there is a new scene while it is read, or goes on by itself.
const SCENE: Duration = Duration::from_millis(100);
/// How long nothing is done while nobody asks for anything.
const STILL: Duration = Duration::from_millis(250);
/// Events between two looks at the clock.
const EVENTS: u32 = 1024;
/// How much longer than a census takes there is none, while the recording is read.
const REST: u32 = 4;

/// A recording that is shown.
struct Recorded<'a> {
    path: &'a Path,
    feed: &'a Feed,
    asks: Receiver<Ask>,
    stage: Stage,
    replay: Replay<File>,
    /// Bytes of the file.
    length: u64,
    begin_ns: u64,
    now_ns: u64,
    end_ns: u64,
    /// It was read to its end: what comes now was seen before.
    again: bool,
    census: Option<Arc<Census>>,
    /// Until when there is no other while it is read.
    counted: Instant,
    /// How fast it goes on by itself; since when, and from where.
    playing: Option<(f64, Instant, u64)>,
}

/// Shows a recording until somebody has seen enough, and says how many violations it has. `at`: begins at this time after
/// its begin.
///
/// # Errors
/// The file is no recording.
pub fn run(path: &Path, at: Option<Duration>, feed: &Feed, asks: Receiver<Ask>) -> Result<u64> {
    let replay = Replay::open(path).map_err(recording::unreadable)?;
    let begin_ns = replay.header().clock.monotonic_ns;
    let mut recorded = Recorded {
        path,
        feed,
        asks,
        stage: Stage::new(scene(path, replay.header()), History::whole(begin_ns), Names::default()),
        replay,
        length: std::fs::metadata(path).map_or(1, |file| file.len().max(1)),
        begin_ns,
        now_ns: begin_ns,
        end_ns: begin_ns,
        again: false,
        census: None,
        counted: Instant::now(),
        playing: None,
    };
    recorded.read()?;
    let total = recorded.replay.model().total();
    if let Some(at) = at {
        recorded.go(begin_ns.saturating_add(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)))?;
    }
    recorded.stage.scene.about.phase = Phase::Running;
    recorded.show();
    recorded.stay()?;
    Ok(total)
}

/// What a recording says of itself.
fn scene(path: &Path, header: &Header) -> Scene {
    let file = path.file_name().map(PathBuf::from).unwrap_or_else(|| path.to_owned());
    let mut about = About {
        source: Source::Recording(file.display().to_string()),
        phase: Phase::Reading(0),
        kernel: header.kernel.release.clone(),
        tdx_module: header.kernel.tdx_module.clone(),
        ..About::default()
    };
    if header.what != What::All {
        about.no_calls = Some("the recording has no SEAMCALLs: it was not made with --events all");
    }
    if let Origin::Demo { scenarios, .. } = &header.origin {
        about.hostname = format!("demo {}", scenarios.join(", "));
    }
    planned(about, &header.plan)
}

impl Recorded<'_> {
    /// Reads it to its end.
    fn read(&mut self) -> Result<()> {
        let mut published = Instant::now();
        self.show();
        let mut events = 0;
        while self.step() {
            events += 1;
            if events % EVENTS == 0 {
                if self.feed.is_quitting() {
                    return Ok(());
                }
                if published.elapsed() >= SCENE {
                    published = Instant::now();
                    let bytes = self.replay.reader().bytes().min(self.length);
                    self.stage.scene.about.phase = Phase::Reading((bytes * 1000 / self.length) as u16);
                    self.stage.show_pending(Some(self.replay.model()));
                    self.show();
                }
            }
        }
        self.stage.finish(self.now_ns, self.totals(), self.lent());
        if self.replay.damages() != 0 {
            let missing = self.replay.missing();
            let why = format!("the recording is damaged: {missing} records and more are missing");
            self.stage.scene.host.degraded.push(why);
        }
        if self.replay.unwritten() != 0 {
            let why = format!("{} records could not be written", self.replay.unwritten());
            self.stage.scene.host.degraded.push(why);
        }
        self.stage.show_pending(Some(self.replay.model()));
        self.again = true;
        Ok(())
    }

    /// Takes the next step of the recording. False: there is none.
    fn step(&mut self) -> bool {
        let Some(got) = self.replay.advance() else { return false };
        match got {
            Got::Event => {
                let time_ns = self.replay.event().header().time_ns;
                // Events of one CPU can be read before earlier ones of another.
                self.now_ns = self.now_ns.max(time_ns);
                self.end_ns = self.end_ns.max(time_ns);
                if self.again {
                    self.stage.event_again(self.replay.event());
                    return true;
                }
                self.stage.event(self.replay.event(), self.replay.found());
                if self.now_ns >= self.stage.due_ns() {
                    let (totals, lent) = (self.totals(), self.lent());
                    self.stage.step(self.now_ns, totals, lent);
                    self.count();
                }
            }
            _ if self.again => {}
            Got::Note(note) => match *note {
                Note::Step { time_ns, text } => self.stage.note(time_ns, text),
                Note::Unwritten { records, why } => {
                    self.stage
                        .note(self.now_ns, format!("here {records} records could not be written: {why}"));
                }
                _ => {}
            },
            Got::Damage(damage) => self.stage.note(self.now_ns, damage.to_string()),
        }
        true
    }

    /// Answers what is asked for, until somebody has seen enough.
    fn stay(&mut self) -> Result<()> {
        while !self.feed.is_quitting() {
            let pause = if self.playing.is_some() { SCENE } else { STILL };
            match self.asks.recv_timeout(pause) {
                Ok(ask) => self.answer(ask)?,
                Err(RecvTimeoutError::Timeout) => self.play(),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let lines = self.feed.take_lines();
            if !lines.is_empty() {
                lines.into_iter().for_each(|line| self.stage.note(self.now_ns, line));
                self.show();
            }
        }
        Ok(())
    }

    fn answer(&mut self, ask: Ask) -> Result<()> {
        match ask {
            Ask::Td(td) => {
                self.stage.wanted = td;
                self.census = None;
                self.show();
            }
            Ask::Go(to_ns) => {
                self.playing = None;
                self.go(to_ns)?;
            }
            Ask::Play(speed) => {
                if speed.is_some() && self.now_ns >= self.end_ns {
                    // From the begin, where else.
                    self.go(self.begin_ns)?;
                }
                self.playing = speed.map(|speed| (speed, Instant::now(), self.now_ns));
                self.show();
            }
            Ask::Record => self.say("this is a recording already"),
            Ask::Arm(_) | Ask::Disarm => {
                self.say("a recording has no policy: `septwatch policy test` tries one")
            }
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.stage.tell(self.now_ns, text.to_owned());
        self.show();
    }

    /// Goes to a moment.
    fn go(&mut self, to_ns: u64) -> Result<()> {
        let to_ns = to_ns.clamp(self.begin_ns, self.end_ns);
        if to_ns < self.now_ns {
            // Backwards is once more from the begin.
            self.replay = Replay::open(self.path).map_err(recording::unreadable)?;
            self.now_ns = self.begin_ns;
            self.stage.again();
        }
        // What happens per second is told from a little before.
        let before_ns = to_ns.saturating_sub((self.end_ns - self.begin_ns) / 100);
        if self.now_ns < before_ns {
            self.advance(before_ns);
            let facts = facts(&self.replay, &self.stage, before_ns, None);
            self.stage.rows(&facts);
        }
        self.advance(to_ns);
        self.census = None;
        self.show();
        Ok(())
    }

    /// Up to the last event of a moment.
    fn advance(&mut self, to_ns: u64) {
        loop {
            match self.replay.peek() {
                Some(event) if event.header().time_ns > to_ns => break,
                _ => {}
            }
            if !self.step() {
                break;
            }
        }
        self.now_ns = to_ns;
    }

    fn play(&mut self) {
        let Some((speed, since, from_ns)) = self.playing else { return };
        let gone_ns = (since.elapsed().as_nanos() as f64 * speed) as u64;
        let to_ns = from_ns.saturating_add(gone_ns).min(self.end_ns);
        self.advance(to_ns);
        if to_ns == self.end_ns {
            self.playing = None;
        }
        self.census = None;
        self.show();
    }

    fn totals(&self) -> Totals {
        totals(&self.replay, &self.stage)
    }

    fn lent(&self) -> u64 {
        let lent = self.replay.ledger().tds().map(|(_, td)| td.lent());
        lent.fold(0, u64::saturating_add)
    }

    /// Counts the frames while the recording is read, if there is time for it.
    fn count(&mut self) {
        let begun = Instant::now();
        if begun < self.counted {
            return;
        }
        self.census = Some(self.census());
        let facts = facts(&self.replay, &self.stage, self.now_ns, self.census.clone());
        self.stage.remember(&facts);
        self.counted = Instant::now() + begun.elapsed() * REST;
    }

    fn census(&self) -> Arc<Census> {
        let wanted = self.stage.wanted_index(self.replay.model(), &records(&self.replay));
        Arc::new(Census::of(self.replay.ledger().open_lines(), wanted, self.now_ns))
    }

    fn show(&mut self) {
        if self.census.is_none() {
            self.census = Some(self.census());
        }
        let facts = facts(&self.replay, &self.stage, self.now_ns, self.census.clone());
        self.stage.rows(&facts);
        self.stage.standing(&self.replay.standing());
        if self.again {
            self.stage.refresh_at(self.now_ns, self.replay.model());
        } else {
            self.stage.refresh(self.now_ns, self.replay.model());
        }
        let time = &mut self.stage.scene.time;
        time.clock = self.replay.header().clock;
        (time.begin_ns, time.end_ns) = (self.begin_ns, self.end_ns);
        time.travelling = self.now_ns < self.end_ns;
        time.playing = self.playing.map(|(speed, ..)| speed);
        self.feed.publish(Arc::new(self.stage.scene.clone()));
    }
}

fn totals(replay: &Replay<File>, stage: &Stage) -> Totals {
    let model = replay.model();
    let answers = match replay.header().what {
        What::All => stage.calls().answers,
        _ => replay.standing().counters.calls,
    };
    Totals {
        records: model.accounting.records(),
        violations: model.total(),
        lost: replay.lost(),
        ..Totals::of(&answers)
    }
}

fn records(replay: &Replay<File>) -> Records {
    Records::of(replay.ledger().tds().map(|(index, td)| (index, *td)))
}

fn facts<'a>(replay: &'a Replay<File>, stage: &Stage, now_ns: u64, census: Option<Arc<Census>>) -> Facts<'a> {
    let counted = match replay.header().what {
        What::All => None,
        _ => Some(Calls::counted(replay.standing().counters.calls)),
    };
    Facts {
        now_ns,
        model: replay.model(),
        totals: totals(replay, stage),
        counted,
        records: records(replay),
        census,
        held: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests;
