//! The re-run of records: the same findings as where the records were made, and what differs is told.

use proptest::prelude::*;
use septwatch::{
    model::{
        rerun::{Found, Rerun, compare::Differences},
        store::Ledger,
    },
    source::event,
};
use septwatch_common::{
    Leaf, Level, Status, Suspect, Violation,
    config::{HOOKED, MAX_TDS},
    tracker::{self, Call, Finding},
    wire::{Frame, Header, Hook, Kind, SeamcallErr, SeamcallOk, TdLife, VERSION, ViolationEvent},
    zap::{Answer, PFN_UNKNOWN, Zap},
};
use zerocopy::FromZeros as _;

use crate::{
    naive::Naive,
    steps::{self, Event, Step},
};

/// Where records are made: the ledger as the programs in the kernel run it.
#[derive(Default)]
pub struct Recorder {
    pub ledger: Ledger,
    pub now_ns: u64,
    /// Records, in their order.
    pub pages: Vec<event::Event>,
    pub verdicts: Vec<event::Event>,
}

fn header(time_ns: u64, kind: Kind) -> Header {
    Header { time_ns, seq: 0, tgid: 5, cpu: 0, kind: kind as u8, version: VERSION }
}

/// As the programs write it.
pub fn record(leaf: Leaf, call: &Call) -> event::Event {
    let header = header(call.answer.now_ns, Kind::SeamcallErr);
    let (tdr, pfn) = match leaf {
        Leaf::VpAddcx => (call.tdvpr, call.pfn),
        Leaf::VpCreate => (call.tdr, call.tdvpr),
        _ => (call.tdr, call.pfn),
    };
    let (gfn, leaf, level, hkid) = (call.gfn, leaf as u8, call.level as u8, call.hkid);
    let record = SeamcallOk { header, tdr, pfn, gfn, leaf, level, hkid, tid: 6, took_ns: 0, zero: 0 };
    let (ext_err1, ext_err2) = (call.answer.ext_err1, call.answer.ext_err2);
    event::Event::Call(SeamcallErr { call: record, status: call.answer.status.0, ext_err1, ext_err2 })
}

fn frame(time_ns: u64, pfn: u64, hook: Hook) -> event::Event {
    let header = header(time_ns, Kind::Frame);
    event::Event::Frame(Frame { header, pfn, tid: 6, hook: hook as u8, zero: [0; 3] })
}

impl Recorder {
    /// One event after the other.
    pub fn live(&mut self, events: &[Event]) {
        for event in events {
            self.event(event);
        }
    }

    /// One event. What is found comes back.
    pub fn event(&mut self, event: &Event) -> Option<Finding> {
        self.now_ns += 1;
        let now_ns = self.now_ns;
        self.ledger.running.now_ns = now_ns;
        self.ledger.running.tgid = 5;
        let mut out = Finding::NONE;
        let found = match *event {
            Event::Call(leaf, mut call) => {
                call.answer.now_ns = now_ns;
                self.pages.push(record(leaf, &call));
                tracker::seamcall(&mut self.ledger, leaf, &call, &mut out)
            }
            Event::Free { pfn, batched } => {
                let hook = if batched { Hook::PageFreeBatched } else { Hook::PageFree };
                self.pages.push(frame(now_ns, pfn, hook));
                tracker::release(&mut self.ledger, pfn, batched, now_ns, &mut out)
            }
            Event::Alloc { pfn } => {
                self.pages.push(frame(now_ns, pfn, Hook::PageAlloc));
                tracker::allocation(&mut self.ledger, pfn, now_ns, &mut out)
            }
        };
        if !found {
            return None;
        }
        let td = self.ledger.td(out.td);
        let mut event = ViolationEvent::new_zeroed();
        event.header = header(now_ns, Kind::Violation);
        (event.pfn, event.gfn, event.line, event.zap) = (out.pfn, out.gfn, out.line.0, out.zap);
        (event.tdr, event.td_id) = td.map_or((0, 0), |record| (record.tdr, record.id));
        (event.suspect, event.td, event.violation) = (out.suspect.0, out.td, out.violation as u8);
        self.verdicts.push(event::Event::Violation(Box::new(event)));
        Some(out)
    }
}

/// Random lives as events.
pub fn events(steps: &[Step]) -> Vec<Event> {
    let mut world = Naive::default();
    let mut all = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        let mut events = Vec::new();
        step.events(&world, &mut events);
        for event in events {
            let now_ns = all.len() as u64 + n as u64;
            match event {
                Event::Call(leaf, call) => world.seamcall(leaf, &call),
                Event::Free { pfn, batched } => world.release(pfn, batched, now_ns),
                Event::Alloc { pfn } => world.allocation(pfn, now_ns),
            };
            all.push(event);
        }
    }
    all
}

fn recorded(events: &[Event]) -> Recorder {
    let mut recorder = Recorder::default();
    recorder.live(events);
    recorder
}

/// Takes events in that find nothing of interest.
fn apply<'a>(rerun: &mut Rerun, events: impl IntoIterator<Item = &'a event::Event>) {
    for event in events {
        rerun.apply(event);
    }
}

/// In batches, as in a recording: first the one stream, then the other.
fn replay(recorder: &Recorder, batch: usize, vital_first: bool) -> Differences {
    let mut rerun = Rerun::default();
    let mut vital = recorder.verdicts.iter().peekable();
    let batches = recorder.pages.chunks(batch);
    for pages in batches {
        let until = pages.last().map_or(0, |event| event.header().time_ns);
        let told = std::iter::from_fn(|| vital.next_if(|event| event.header().time_ns <= until));
        if vital_first {
            apply(&mut rerun, told.chain(pages));
        } else {
            apply(&mut rerun, pages.iter().chain(told));
        }
    }
    assert_eq!(rerun.unreadable(), 0);
    rerun.differences()
}

/// A TD with a leaf that is freed without any zap.
fn freed_early() -> Recorder {
    recorded(&events(&freed_early_steps()))
}

fn freed_early_steps() -> [Step; 4] {
    let pfn = steps::SMALL;
    [
        Step::Begin { td: 0 },
        Step::Finalize { td: 0 },
        Step::Map { td: 0, gfn: 3, pfn: 0, huge: false, late: false },
        Step::Free { pfn, batched: false },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rerun_finds_what_was_found(
        life in prop::collection::vec(steps::step(10, 0.01), 1..120),
        batch in 1usize..40,
        vital_first in any::<bool>(),
    ) {
        let mut recorder = Recorder::default();
        let mut rerun = Rerun::default();
        for event in events(&life) {
            let expected = recorder.event(&event);
            let Some(page) = recorder.pages.last() else { unreachable!("each event has a record") };
            let found = rerun.apply(page);
            let finding = found.map(|found| found.finding);
            prop_assert_eq!(format!("{finding:?}"), format!("{expected:?}"), "{:?}", page);
        }
        prop_assert_eq!(rerun.ledger().snapshot(), recorder.ledger.snapshot());
        let differences = replay(&recorder, batch, vital_first);
        prop_assert!(differences.is_none(), "{:?}", differences);
        prop_assert_eq!(differences.agreed + differences.not_compared, recorder.verdicts.len() as u64);
    }

    #[test]
    fn records_that_nobody_made_do_no_harm(words in prop::collection::vec(
        (any::<[u64; 3]>(), prop::sample::select(HOOKED.to_vec()), 0u8..6, 0u8..4, any::<bool>()), 1..60,
    )) {
        let mut rerun = Rerun::new(Ledger::new(16));
        for ([tdr, pfn, gfn], leaf, level, tame, fails) in words {
            // Some of the numbers must meet.
            let mask = [u64::MAX, 0x3ff, 3, u64::MAX << 52][usize::from(tame)];
            let call = SeamcallOk {
                header: header(tdr, Kind::SeamcallErr),
                tdr: tdr & mask, pfn: pfn & mask, gfn: gfn & mask, leaf: leaf as u8, level,
                hkid: 0, tid: 0, took_ns: 0, zero: 0,
            };
            let status = if fails { pfn } else { 0 };
            rerun.apply(&event::Event::Call(SeamcallErr { call, status, ext_err1: gfn, ext_err2: tdr }));
            for hook in [Hook::PageFree, Hook::PageFreeBatched, Hook::PageAlloc, Hook::Zap] {
                rerun.apply(&frame(gfn, pfn & mask, hook));
            }
        }
        prop_assert!(rerun.unreadable() > 0, "Zap is no hook of a frame");
        prop_assert!(rerun.ledger().chunks() <= 16);
    }
}

#[test]
fn what_only_one_side_has_is_told() {
    let recorder = freed_early();
    let [verdict] = &recorder.verdicts[..] else { panic!("{:?}", recorder.verdicts) };
    let both = replay(&recorder, 3, true);
    assert_eq!((both.agreed, both.not_compared, both.is_none()), (1, 0, true));

    let without_verdict = Recorder { pages: recorder.pages.clone(), ..Recorder::default() };
    let differences = replay(&without_verdict, 3, true);
    assert_eq!((differences.not_recorded.count, differences.not_found.count), (1, 0));
    let told = differences.not_recorded.told[0];
    assert_eq!(
        (told.violation, told.tdr, told.pfn, told.gfn),
        (Violation::FreedWhileMapped, steps::TDRS, Some(steps::SMALL), 3)
    );
    assert_eq!(told.time_ns, verdict.header().time_ns);

    let mut without_record = Rerun::default();
    let but_last = &recorder.pages[..recorder.pages.len() - 1];
    apply(&mut without_record, but_last.iter().chain([verdict]));
    let differences = without_record.differences();
    assert_eq!((differences.not_recorded.count, differences.not_found.told), (0, vec![told]));
}

#[test]
fn what_tells_nothing_is_not_compared() {
    let recorder = freed_early();
    let event::Event::Violation(verdict) = &recorder.verdicts[0] else { panic!("a verdict") };
    let told = |change: fn(&mut ViolationEvent)| {
        let mut changed = verdict.clone();
        change(&mut changed);
        let mut rerun = Rerun::default();
        let but_last = &recorder.pages[..recorder.pages.len() - 1];
        apply(&mut rerun, but_last);
        rerun.apply(&event::Event::Violation(changed));
        let differences = rerun.differences();
        (differences.not_found.count, differences.not_compared)
    };
    assert_eq!(told(|_| {}), (1, 0));
    assert_eq!(told(|event| event.violation = Violation::VmBugged as u8), (0, 1));
    assert_eq!(told(|event| event.violation = Violation::HostAccessWhileMapped as u8), (0, 1));
    assert_eq!(told(|event| event.violation = Violation::ZapFailed as u8), (1, 0));
    let gave_up = |event: &mut ViolationEvent| {
        (event.violation, event.zap.failed_leaf) = (Violation::ZapFailed as u8, Zap::NO_SEAMCALL);
    };
    assert_eq!(told(gave_up), (0, 1));
    assert_eq!(told(|event| event.suspect = Suspect::MISSED.0), (0, 1));
    assert_eq!(told(|event| event.tdr += 1), (0, 1), "a TD that the records do not know");
    assert_eq!(told(|event| event.header.time_ns = 0), (0, 1), "before the TD began");
}

#[test]
fn a_td_that_began_before_is_not_compared() {
    let recorder = freed_early();
    // CREATE, ADDCX, INIT, VP.CREATE, VP.ADDCX are not in the recording: FINALIZE is the first that names the TD.
    for first in [5, recorder.pages.len() - 1] {
        let late = Recorder {
            pages: recorder.pages[first..].to_vec(),
            verdicts: recorder.verdicts.clone(),
            ..Recorder::default()
        };
        let differences = replay(&late, 1, false);
        assert!(differences.is_none(), "{differences:?}");
        assert_eq!(differences.agreed + differences.not_compared, 1);
    }
}

#[test]
fn a_td_that_the_kernel_side_doubts_is_not_compared() {
    let recorder = freed_early();
    let mut life = TdLife::new_zeroed();
    life.header = header(1, Kind::TdLife);
    (life.tdr, life.suspect) = (steps::TDRS, Suspect::OUTSIDE.0);
    let mut rerun = Rerun::default();
    rerun.apply(&event::Event::Life(life));
    apply(&mut rerun, &recorder.pages);
    let differences = rerun.differences();
    assert_eq!((differences.not_recorded.count, differences.not_compared), (0, 1));
}

#[test]
fn after_a_loss_nothing_is_compared() {
    let recorder = freed_early();
    let mut rerun = Rerun::default();
    apply(&mut rerun, &recorder.pages);
    rerun.lost();
    rerun.apply(&recorder.verdicts[0]);
    let differences = rerun.differences();
    assert!(differences.is_none());
    assert_eq!((differences.agreed, differences.not_compared), (0, 2), "what waited, and what came after");
}

#[test]
fn a_frame_that_one_side_does_not_know_does_not_count() {
    let [begin, finalize, map, _] = freed_early_steps();
    let mut events = events(&[begin, finalize, map]);
    // BLOCK names no frame.
    let refused = Step::Call {
        leaf: Leaf::MemRangeBlock,
        td: 0,
        pfn: 0,
        gfn: 3,
        huge: false,
        status: 7,
        entry: 0,
        named: false,
    };
    refused.events(&Naive::default(), &mut events);
    let mut recorder = recorded(&events);
    let Some(event::Event::Violation(verdict)) = recorder.verdicts.last_mut() else { panic!("zap-failed") };
    assert_eq!(
        (verdict.violation, verdict.pfn),
        (Violation::ZapFailed as u8, PFN_UNKNOWN),
        "the step's call is refused"
    );
    verdict.pfn = steps::SMALL;
    for vital_first in [false, true] {
        let differences = replay(&recorder, 100, vital_first);
        assert_eq!((differences.agreed, differences.is_none()), (1, true));
    }
}

/// However many differences there are, memory is bounded, and none goes uncounted.
#[test]
fn differences_beyond_the_limit_are_counted() {
    const MANY: u64 = 40_000;
    let [begin, finalize, ..] = freed_early_steps();
    let mut recorder = recorded(&events(&[begin, finalize]));
    for n in 0..MANY {
        let mut event = ViolationEvent::new_zeroed();
        event.header = header(1000 + n, Kind::Violation);
        (event.tdr, event.gfn) = (steps::TDRS, n);
        recorder.verdicts.push(event::Event::Violation(Box::new(event)));
    }
    let mut rerun = Rerun::default();
    apply(&mut rerun, recorder.pages.iter().chain(&recorder.verdicts));
    let differences = rerun.differences();
    assert_eq!((differences.not_found.count, differences.not_found.told.len()), (MANY, 1000));
    assert!(differences.not_found.told.iter().map(|sight| sight.gfn).eq(0..1000), "oldest first");
}

#[test]
fn a_finding_names_its_td_and_what_told() {
    let recorder = freed_early();
    let mut rerun = Rerun::default();
    let found: Vec<Found> = recorder.pages.iter().filter_map(|event| rerun.apply(event)).collect();
    let [found] = &found[..] else { panic!("{found:?}") };
    assert_eq!((found.tdr, found.td_id, found.hook), (steps::TDRS, 1, Hook::PageFree as u8));
    assert_eq!(found.finding.line.level(), Level::L4K);
    assert_eq!(rerun.ledger().td_at(steps::TDRS, found.time_ns).map(|td| (td.id, td.tgid)), Some((1, 5)));
}

/// Of a TD that is long gone, and whose index others have had since, it is still known that it was there.
#[test]
fn a_verdict_waits_longer_than_its_td_lives() {
    let life = [&freed_early_steps()[..], &[Step::End { td: 0, reclaims: true }]].concat();
    let recorder = recorded(&events(&life));
    let at = recorder.verdicts[0].header().time_ns;
    let mut rerun = Rerun::default();
    let (before, after): (Vec<_>, Vec<_>) = recorder
        .pages
        .iter()
        .filter(|page| page.header().time_ns != at)
        .partition(|page| page.header().time_ns < at);
    apply(&mut rerun, before);
    apply(&mut rerun, &recorder.verdicts);
    apply(&mut rerun, after);
    let mut later = Recorder { now_ns: 1000, ..Recorder::default() };
    let answer = Answer { status: Status(0), ext_err1: 0, ext_err2: 0, now_ns: 0 };
    let of_tdr = |leaf, tdr, pfn| {
        let (tdvpr, gfn, level, hkid) = (PFN_UNKNOWN, 0, Level::L4K, 0);
        Event::Call(leaf, Call { tdr, pfn, tdvpr, gfn, level, hkid, answer })
    };
    let reclaim = of_tdr(Leaf::PhymemPageReclaim, PFN_UNKNOWN, steps::TDRS);
    let create = of_tdr(Leaf::MngCreate, steps::TDRS, PFN_UNKNOWN);
    for _ in 0..2 * MAX_TDS {
        later.live(&[create, reclaim]);
    }
    apply(&mut rerun, &later.pages);
    let differences = rerun.differences();
    assert_eq!(differences.not_found.count, 1, "{differences:?}");
}
