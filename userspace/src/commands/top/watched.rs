//! A host that is watched, or the demo: what arrives becomes scenes.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use anyhow::Result;
use septwatch_common::config::Counters;

use super::{
    census::Counting,
    costs::Costs,
    feed::Feed,
    history::Totals,
    policy,
    recorder::Recording,
    stage::{Facts, Records, Stage},
    travel::Travel,
};
use crate::{
    commands::{live::Sink, policing::Guard},
    model::{activity::Calls, verdict::Verdict},
    policy::{
        audit::{self, Step},
        control::Request,
    },
    recording::header::Clock,
    source::{event::Event, session::Session},
    view::{
        stack::Places,
        top::scene::{Ask, Phase},
    },
};

/// How often there is a new scene: a little sooner than every other time that the source is woken.
const SCENE: Duration = Duration::from_millis(190);
/// How often what changes slowly is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What arrives becomes scenes.
pub struct Watched<'a> {
    /// Makes them.
    pub stage: Stage,
    feed: &'a Feed,
    asks: Receiver<Ask>,
    counting: Counting,
    costs: Costs,
    travel: Travel,
    recording: Recording,
    held: BTreeMap<u32, u64>,
    published: Instant,
    looked: Option<Instant>,
    /// Rows were made since the last scene.
    fresh: bool,
    /// The map of the TD that is open is still being made.
    waits: bool,
}

impl<'a> Watched<'a> {
    /// Begins.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn begin(
        stage: Stage,
        feed: &'a Feed,
        asks: Receiver<Ask>,
        costs: Costs,
        recording: Recording,
        session: &mut Session,
    ) -> Result<Self> {
        let counting = Counting::begin(session.kernel())?;
        let mut watched = Self {
            stage,
            feed,
            asks,
            counting,
            costs,
            travel: Travel::default(),
            recording,
            held: BTreeMap::new(),
            published: Instant::now(),
            looked: None,
            fresh: false,
            waits: false,
        };
        watched.stage.scene.about.phase = Phase::Running;
        watched.look(session, None)?;
        watched.publish(session);
        Ok(watched)
    }

    fn answer(&mut self, ask: Ask, session: &mut Session, guard: Option<&mut Guard>) -> Result<()> {
        let request = match ask {
            Ask::Td(td) => {
                self.stage.wanted = td;
                // At once, not when it is time again.
                self.looked = None;
                return Ok(());
            }
            Ask::Go(to_ns) => {
                self.travel.go(to_ns);
                return Ok(());
            }
            // A host that is watched goes on by itself.
            Ask::Play(_) => return Ok(()),
            Ask::Record => {
                let told = self.recording.toggle(session);
                self.stage.scene.about.recording = self.recording.file();
                self.tell(told);
                return Ok(());
            }
            Ask::Arm(policy) => Request::Arm { policy },
            Ask::Disarm => Request::Disarm,
        };
        let Some(guard) = guard else {
            self.tell("no policy is followed: `septwatch top --policy NAME` follows one".to_owned());
            return Ok(());
        };
        match guard.request(&request, audit::Who::this(), session) {
            Ok(_) => self.tell(guard.told()),
            Err(why) => self.tell(why),
        }
        self.looked = None;
        Ok(())
    }

    fn tell(&mut self, text: String) {
        self.stage.tell(Clock::now().monotonic_ns, text);
    }

    /// What changes slowly: rows, what is held, the policy, what it all costs.
    fn look(&mut self, session: &mut Session, guard: Option<&mut Guard>) -> Result<()> {
        (self.looked, self.fresh) = (Some(Instant::now()), true);
        let held = session.kernel().reactions().in_force()?;
        self.held = held.into_iter().map(|(td, held)| (td, held.frames)).collect();
        if let Some(guard) = guard {
            self.stage.scene.policy = Some(Arc::new(policy::standing(guard, session)));
        }
        let (standing, runs) = session.standing_lately()?;
        let facts = self.facts(session, &standing.counters)?;
        self.stage.step(facts.now_ns, facts.totals, facts.records.lent);
        self.stage.rows(&facts);
        let wanted = self.stage.wanted_index(facts.model, &facts.records);
        self.counting.want(wanted);
        self.waits = wanted.is_some() && !self.counting.is_answered();
        self.stage.standing(&standing);
        if let Some(overhead) = self.costs.since(runs) {
            self.stage.scene.host.overhead = Some(overhead);
        }
        Ok(())
    }

    fn facts<'s>(&self, session: &'s mut Session, counters: &Counters) -> Result<Facts<'s>> {
        let records = session.records()?;
        let model = session.model();
        let (records_read, violations) = (model.accounting.records(), model.total());
        let totals = Totals { records: records_read, violations, ..Totals::counted(counters) };
        Ok(Facts {
            now_ns: Clock::now().monotonic_ns,
            model,
            totals,
            counted: Some(Calls::counted(counters.calls)),
            records: Records::of(records),
            census: self.counting.latest(),
            held: self.held.clone(),
        })
    }

    fn publish(&mut self, session: &mut Session) {
        self.published = Instant::now();
        let clock = Clock::now();
        let time = &mut self.stage.scene.time;
        time.clock = clock;
        time.end_ns = clock.monotonic_ns;
        time.begin_ns = self.travel.begin_ns().unwrap_or(clock.monotonic_ns);
        self.stage.refresh(clock.monotonic_ns, session.model());
        let scene = Arc::new(self.stage.scene.clone());
        if std::mem::take(&mut self.fresh) {
            self.travel.keep(Arc::clone(&scene));
        }
        self.feed.publish(self.travel.shown(&scene));
    }

    /// Ends: a recording that is being written is finished.
    ///
    /// # Errors
    /// The kernel side cannot be read.
    pub fn end(&mut self, session: &mut Session) -> Result<Option<String>> {
        self.recording.end(session)
    }
}

impl Sink for Watched<'_> {
    fn event(&mut self, event: &Event, found: Option<(&Verdict, &Places)>) -> Result<()> {
        self.recording.event(event, found);
        self.stage.event(event, found);
        Ok(())
    }

    fn reaction(&mut self, step: &Step) -> Result<()> {
        self.stage.reaction(step);
        Ok(())
    }

    fn pumped(&mut self, session: &mut Session, mut guard: Option<&mut Guard>) -> Result<()> {
        self.recording.pumped(session)?;
        for line in self.feed.take_lines() {
            self.stage.note(Clock::now().monotonic_ns, line);
        }
        let mut answered = false;
        while let Ok(ask) = self.asks.try_recv() {
            self.answer(ask, session, guard.as_deref_mut())?;
            answered = true;
        }
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if is_due || self.waits && self.counting.is_answered() {
            self.look(session, guard)?;
        }
        if answered || self.published.elapsed() >= SCENE {
            self.publish(session);
        }
        Ok(())
    }
}
