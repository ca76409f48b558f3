//! Scenes for tests of what is done with them.

use std::sync::Arc;

use septwatch_common::{Leaf, Life, Suspect, Violation};

use crate::{
    model::{histogram::Summary, verdict::Verdict},
    view::{
        stack::Places,
        top::scene::{Found, HookRow, LeafRow, LogLine, Policy, Rates, Sample, Scene, TdRow, Time, Weight},
    },
};

pub const SECOND: u64 = 1_000_000_000;

pub fn td(id: u32, name: Option<&str>) -> TdRow {
    TdRow {
        id,
        name: name.map(Arc::from),
        cgroup: None,
        tgid: 100 + id,
        comm: Arc::from("qemu-system-x86"),
        tdr: 0x1_0000 + u64::from(id),
        hkid: 16 + id as u16,
        life: Life::Finalized,
        suspect: Suspect::default(),
        begun_ns: 900 * SECOND,
        frames: [0; 6],
        rates: Rates::default(),
        failed_zaps: 0,
        violations: 0,
        held: None,
        bugged_ns: None,
    }
}

pub fn found(number: u64, violation: Violation, td: Option<u32>, time_ns: u64) -> Found {
    Found {
        number,
        verdict: Verdict {
            violation,
            suspect: Suspect::default(),
            time_ns,
            cpu: 0,
            td,
            tdr: None,
            pfn: Some(0x2_abc0 + number),
            gfn: None,
            line: None,
            cause: None,
            failed: None,
            since_failed_ns: None,
            window_ns: number.is_multiple_of(2).then_some(number * 1_000),
            invalidation_ns: None,
            let_go: None,
            frames: 1,
            hook: "free_unref_folios",
            tgid: 101,
            tid: 101,
            comm: "kworker/u8:1".to_owned(),
            cgroup: 0,
            kernel_stack: Vec::new(),
            user_stack: Vec::new(),
        },
        places: Places::default(),
        td_name: td.map(|td| Arc::from(format!("web-{td}"))),
        story: Vec::new(),
        story_is_cut: false,
        steps: Vec::new(),
    }
}

fn leaf(leaf: Leaf, rate: f64, p99_ns: Option<u64>) -> LeafRow {
    let latency = p99_ns.map(|p99_ns| Summary { count: 1, min_ns: 1, p50_ns: 1, p99_ns, max_ns: p99_ns });
    let statuses = Vec::new();
    LeafRow { leaf, ok: 1, busy: 2, errors: 3, rate, busy_rate: 0.0, statuses, latency, octaves: Vec::new() }
}

fn line(seconds: u64, weight: Weight, td: Option<u32>, text: &str) -> Arc<LogLine> {
    Arc::new(LogLine { time_ns: seconds * SECOND, weight, td, text: text.to_owned() })
}

fn hook(name: &str, bound: bool, required: bool) -> HookRow {
    HookRow {
        name: name.to_owned(),
        bound: bound.then(|| "fentry".to_owned()),
        missing: (!bound).then(|| "not in BTF".to_owned()),
        required,
        lost: vec!["zap-failed", "map-failed"],
        ..HookRow::default()
    }
}

/// A little of everything, 1,000 s after the host's start; the last 900 s are kept.
pub fn scene() -> Scene {
    let mut tds =
        vec![td(1, Some("web-1")), td(2, Some("Web-2")), td(3, Some("db \u{6f22}\u{5b57}")), td(4, None)];
    for (td, (gib, busy)) in tds.iter_mut().zip([(2, 0.0), (1, 150.5), (4, 100.0), (0, 0.0)]) {
        td.frames[septwatch_common::PageKind::Leaf as usize] = gib << 18;
        td.rates.busy = busy;
    }
    tds[2].held = Some(10);
    tds[2].bugged_ns = Some(1);
    tds[3].cgroup = Some(Arc::from("/machine.slice/a b"));
    let violations = [
        (Violation::FreedWhileMapped, Some(1), 200),
        (Violation::MapFailed, Some(2), 300),
        (Violation::ZapFailed, None, 900),
    ];
    let violations = (1..)
        .zip(violations)
        .map(|(number, (violation, td, seconds))| Arc::new(found(number, violation, td, seconds * SECOND)));
    let sample = |seconds, violations| Sample { time_ns: seconds * SECOND, violations, ..Sample::default() };
    Scene {
        time: Time {
            begin_ns: 100 * SECOND,
            end_ns: 1_000 * SECOND,
            now_ns: 1_000 * SECOND,
            ..Time::default()
        },
        history: Arc::new(vec![sample(250, 1), sample(500, 1), sample(1_000, 1)]),
        leaves: Arc::new(vec![
            leaf(Leaf::MemPageAug, 5.0, None),
            leaf(Leaf::MemPageRemove, 50.0, Some(9_000)),
            leaf(Leaf::MemTrack, f64::NAN, Some(1_000)),
            leaf(Leaf::VpEnter, 7.0, Some(2_000)),
        ]),
        tds: Arc::new(tds),
        violations: Arc::new(violations.collect()),
        hooks: Arc::new(vec![hook("a", true, true), hook("b", false, false), hook("c", false, true)]),
        log: Arc::new(vec![
            line(110, Weight::Plain, Some(1), "TD 1 created"),
            line(200, Weight::Violation, Some(1), "freed-while-mapped"),
            line(210, Weight::Note, None, "1 record lost"),
        ]),
        policy: Some(Arc::new(Policy {
            name: "contain".to_owned(),
            may_be_armed: true,
            ..Policy::default()
        })),
        ..Scene::default()
    }
}

/// So many violations.
pub fn many(count: u64) -> Scene {
    let violation = |number: u64| {
        let kind = Violation::ALL[(number % 14) as usize];
        Arc::new(found(number, kind, Some((number % 1_000) as u32), number * 1_000))
    };
    let violations = Arc::new((1..=count).map(violation).collect());
    Scene { violations, ..scene() }
}
