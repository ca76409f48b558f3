//! Makes scenes of what a source tells: the one place in which what the views show is put together.

mod rows;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use septwatch_common::{
    Life, Violation,
    wire::{TdLife, ViolationEvent, VmLife},
};

use super::{
    history::{History, Totals},
    kept::Kept,
};
use crate::{
    model::{
        Model,
        activity::{Activity, Calls},
        census::Census,
        stories::{self, Stories},
        verdict::Verdict,
    },
    policy::audit::Step,
    recording::tds::Known,
    report::Life as Story,
    source::{event::Event, session::Standing},
    view::{
        lines,
        stack::Places,
        top::scene::{Found, LINES, LogLine, Sample, Scene, VIOLATIONS, Weight},
    },
};
use rows::OfTd;

pub use rows::{Names, Records};

/// Of the last violations, those among which one about the same frame is looked for.
const AMONG: usize = 256;

/// What a source knows beside events.
pub struct Facts<'a> {
    /// Now, in ns of CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// What events told.
    pub model: &'a Model,
    /// What happened so far.
    pub totals: Totals,
    /// Calls by leaf, as the kernel side counted them; none: as they arrived.
    pub counted: Option<Calls>,
    /// What the ledger has of TDs.
    pub records: Records,
    /// Frames, counted.
    pub census: Option<Arc<Census>>,
    /// Frames of TDs that are held.
    pub held: BTreeMap<u32, u64>,
}

/// A violation that is not shown yet: events about its frame may still be on their way.
struct Pending {
    event: Box<ViolationEvent>,
    verdict: Verdict,
    places: Places,
}

/// Makes scenes.
pub struct Stage {
    /// The scene that is being made.
    pub scene: Scene,
    /// The host over time.
    pub history: History,
    /// The TD that more is wanted of.
    pub wanted: Option<u32>,
    activity: Activity,
    stories: Stories,
    pending: Vec<Pending>,
    numbered: u64,
    violations: Kept<Found>,
    log: Kept<LogLine>,
    names: Names,
    tds: HashMap<u32, OfTd>,
    /// Calls of a step ago, and when that was.
    before: (u64, Calls),
    /// The same of the TD that is wanted.
    wanted_before: Option<(u32, u64, Calls)>,
}

impl Stage {
    /// An empty stage.
    pub fn new(scene: Scene, history: History, names: Names) -> Self {
        Self {
            scene,
            history,
            wanted: None,
            activity: Activity::default(),
            stories: Stories::default(),
            pending: Vec::new(),
            numbered: 0,
            violations: Kept::new(VIOLATIONS),
            log: Kept::new(LINES),
            names,
            tds: HashMap::new(),
            before: (0, Calls::default()),
            wanted_before: None,
        }
    }

    /// Takes an event in that the model has taken in.
    pub fn event(&mut self, event: &Event, found: Option<(&Verdict, &Places)>) {
        self.event_again(event);
        self.stories.event(event);
        let time_ns = event.header().time_ns;
        match (event, found) {
            (Event::Life(TdLife { id, .. }) | Event::Vm(VmLife { id, .. }), _) => {
                self.line(time_ns, Weight::Plain, Some(*id), lines::event(event, None));
            }
            (Event::Violation(violation), Some((verdict, places))) => {
                self.line(time_ns, Weight::Violation, verdict.td, lines::headline(verdict));
                let (verdict, places) = (verdict.clone(), places.clone());
                self.pending.push(Pending { event: violation.clone(), verdict, places });
            }
            _ => {}
        }
    }

    /// The same where what there is to tell of it was told before: for who goes back in a recording.
    pub fn event_again(&mut self, event: &Event) {
        self.activity.event(event);
        let id = match event {
            Event::Life(life) => life.id,
            Event::Vm(vm) => vm.id,
            // 0: no TD is known.
            Event::Violation(violation) if violation.td_id != 0 => violation.td_id,
            _ => return,
        };
        self.tds.entry(id).or_default().event(event);
    }

    /// A recording begins anew.
    pub fn again(&mut self) {
        self.activity = Activity::default();
        self.before = (0, Calls::default());
        self.wanted_before = None;
        for td in self.tds.values_mut() {
            td.again();
        }
    }

    /// What the policy did.
    pub fn reaction(&mut self, step: &Step) {
        let time_ns = step.done_ns.unwrap_or(step.asked_ns);
        self.line(time_ns, Weight::Reaction, step.td, lines::reaction(step));
        // It may be about one that is still pending.
        self.show_pending(None);
        let is_meant = |found: &Found| {
            let verdict = &found.verdict;
            verdict.time_ns == step.violation_ns
                && verdict.violation.name() == step.violation
                && verdict.td == step.td
        };
        self.violations.change(AMONG, is_meant, |found| found.steps.push(step.clone()));
    }

    /// What septwatch says of itself.
    pub fn note(&mut self, time_ns: u64, text: String) {
        self.line(time_ns, Weight::Note, None, text);
    }

    /// The same, as an answer to whoever asked for something.
    pub fn tell(&mut self, time_ns: u64, text: String) {
        let number = self.scene.about.told.as_ref().map_or(0, |(number, _)| number + 1);
        self.scene.about.told = Some((number, text.clone()));
        self.note(time_ns, text);
    }

    fn line(&mut self, time_ns: u64, weight: Weight, td: Option<u32>, text: String) {
        self.log.push(LogLine { time_ns, weight, td, text });
    }

    /// All events that were there have been taken in: violations among them can be told.
    pub fn show_pending(&mut self, model: Option<&Model>) {
        for Pending { event, verdict, places } in std::mem::take(&mut self.pending) {
            let state = verdict.td.and_then(|td| model?.tds.get(&td));
            let td = state.map(|state| Known {
                id: event.td_id,
                tdr: state.tdr,
                // TDH.MNG.CREATE returned a little before it was told.
                begun_ns: state.begun_ns.saturating_sub(1_000_000),
                ended_ns: None,
                tgid: state.tgid,
                comm: state.comm.clone(),
            });
            let story = Story::of(&event, td.as_ref(), &self.stories.about(&event));
            self.numbered += 1;
            // What became of the frame belongs to what was said of it before.
            let (pfn, number) = (verdict.pfn, self.numbered);
            if pfn.is_some() && verdict.violation == Violation::ReusedWhileMapped {
                let later = Event::Violation(event.clone());
                let is_meant = |found: &Found| found.verdict.pfn == pfn && found.verdict.td == verdict.td;
                self.violations.change(AMONG, is_meant, |found| {
                    if !found.story.contains(&later) {
                        found.story.push(later.clone());
                        found.story.sort_by_key(stories::order);
                    }
                });
            }
            let td_name = verdict.td.zip(state).map(|(id, state)| {
                self.names.of(id, state).name.unwrap_or_else(|| Arc::from(state.comm.as_str()))
            });
            let marks = Arc::make_mut(&mut self.scene.marks);
            marks.push(verdict.time_ns);
            if marks.len() > VIOLATIONS {
                marks.remove(0);
            }
            self.violations.push(Found {
                number,
                verdict,
                places,
                td_name,
                story: story.events,
                story_is_cut: !story.begins || story.skipped != 0,
                steps: Vec::new(),
            });
        }
    }

    /// What of the records arrived, and what was not seen.
    pub fn standing(&mut self, standing: &Standing) {
        let host = &mut self.scene.host;
        (host.vital, host.pages) = (Some(standing.vital), Some(standing.pages));
        (host.outside, host.unread) = (standing.counters.outside, standing.counters.unread);
        host.missed_releases = standing.missed_releases;
    }

    /// When the next step of the history ends, in ns of CLOCK_MONOTONIC.
    pub fn due_ns(&self) -> u64 {
        self.history.due_ns()
    }

    /// A step of the history ends: how many frames are lent by now?
    pub fn step(&mut self, now_ns: u64, totals: Totals, lent: u64) {
        let latency = self.activity.take_latency();
        let [p50_ns, p99_ns] =
            latency.map_or([0; 2], |latency| [latency.p50_ns, latency.p99_ns].map(|ns| ns.max(1)));
        self.history.end_step(now_ns, totals, Sample { lent, p50_ns, p99_ns, ..Sample::default() });
    }

    /// A recording ends.
    pub fn finish(&mut self, now_ns: u64, totals: Totals, lent: u64) {
        self.history.finish(now_ns, totals, Sample { lent, ..Sample::default() });
    }

    /// What SEAMCALLs did so far, as they arrived.
    pub fn calls(&self) -> &Calls {
        &self.activity.host
    }

    /// Brings what changes all the time up to date: counts, violations, the log.
    pub fn refresh(&mut self, now_ns: u64, model: &Model) {
        self.show_pending(Some(model));
        (self.scene.violations, self.scene.log) = (self.violations.shown(), self.log.shown());
        self.put(now_ns, model);
    }

    /// The same for an earlier moment of a recording that was read to its end.
    pub fn refresh_at(&mut self, now_ns: u64, model: &Model) {
        self.scene.violations = self.violations.only(|found| found.verdict.time_ns <= now_ns);
        self.scene.log = self.log.only(|line| line.time_ns <= now_ns);
        self.put(now_ns, model);
    }

    fn put(&mut self, now_ns: u64, model: &Model) {
        let scene = &mut self.scene;
        scene.time.now_ns = now_ns;
        scene.history = self.history.samples();
        scene.by_kind.clone_from(&model.violations);
        let host = &mut scene.host;
        host.suspect = model.suspect;
        host.tds_seen = model.tds_seen;
        let gone = |life: Life| life == Life::Gone;
        host.tds = model.tds.values().filter(|td| !gone(td.life)).count() as u64;
        host.rates = self.history.at(now_ns).rates;
        host.latency = model.latencies.all();
    }
}
