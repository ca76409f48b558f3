//! Scenes for tests: nothing, what is common, and more than any host has. The same at every run.

mod parts;

use std::{collections::BTreeMap, sync::Arc};

use septwatch_common::{Life, Status, Suspect, Violation};

use super::scene::{About, Found, Host, Overhead, Phase, Rates, Scene, Source, TdRow, Time};
use crate::{
    model::{
        accounting::Balance,
        histogram::{Octave, Summary},
    },
    recording::header::Clock,
};
use parts::{detail, found, history, hooks, leaves, line, policy, summary, td};

const SECOND: u64 = 1_000_000_000;
/// The moment of all scenes.
const NOW: u64 = 5_000 * SECOND;

/// Nothing has happened: septwatch has just begun.
pub fn empty() -> Scene {
    let clock = Clock { monotonic_ns: NOW, realtime_ns: 1_771_416_224 * SECOND, boottime_ns: NOW };
    Scene {
        marks: Arc::default(),
        about: About { kernel: "6.19.0".to_owned(), hostname: "tdx-host-7".to_owned(), ..About::default() },
        time: Time { clock, begin_ns: NOW, end_ns: NOW, now_ns: NOW, travelling: false, playing: None },
        ..Scene::default()
    }
}

/// A host with a few TDs, of which one is in trouble.
pub fn normal() -> Scene {
    let violations: Vec<_> = (1..=12).map(|number| Arc::new(found(number))).collect();
    let mut by_kind = BTreeMap::new();
    for found in &violations {
        *by_kind.entry(found.verdict.violation).or_insert(0) += 1;
    }
    let suspect = violations.iter().filter(|found| !found.verdict.suspect.is_certain()).count() as u64;
    let tds = vec![
        td(1, Some("web-frontend"), Life::Finalized, 1 << 20),
        td(2, Some("db-primary"), Life::Finalized, 1 << 21),
        TdRow {
            failed_zaps: 3,
            violations: 12,
            bugged_ns: Some(NOW - 62 * SECOND),
            held: Some(4_096),
            ..td(3, Some("ci-runner-17"), Life::Finalized, 1 << 18)
        },
        TdRow { suspect: Suspect::LATE, ..td(4, None, Life::Finalized, 1 << 17) },
        td(5, Some("web-canary"), Life::KeyFreed, 3_000),
    ];
    Scene {
        marks: Arc::default(),
        about: About {
            source: Source::Demo("storm".to_owned()),
            tdx_module: Some("1.5.16".to_owned()),
            ..empty().about
        },
        time: Time { begin_ns: NOW - 300 * SECOND, ..empty().time },
        host: Host {
            tds: 4,
            tds_seen: 7,
            lent: [3_538_944, 7_220, 5, 30, 20, 100],
            rates: Rates {
                calls: 8_210.0,
                maps: 1_240.0,
                zaps: 802.4,
                busy: 12.2,
                errors: 0.3,
                records: 8_300.0,
            },
            latency: Some(summary(2_048)),
            suspect,
            vital: Some(Balance { produced: 48, received: 48, earlier: 0, lost: 0 }),
            pages: Some(Balance { produced: 2_461_233, received: 2_460_102, earlier: 1_000, lost: 0 }),
            degraded: vec!["kvm_gmem_error_folio is missing: poisoned-while-mapped is not found".to_owned()],
            overhead: Some(Overhead {
                agent: 4.2,
                programs: Some(11.9),
                runs: Some(16_400.0),
                rss: 24 << 20,
                counters: Some(Ok((1.2e7, 2.1e7))),
            }),
            ..Host::default()
        },
        history: Arc::new(history(300)),
        leaves: Arc::new(leaves()),
        tds: Arc::new(tds),
        td: Some(Arc::new(detail(3, 96))),
        violations: Arc::new(violations),
        by_kind,
        hooks: Arc::new(hooks()),
        policy: Some(Arc::new(policy())),
        log: Arc::new((0..40).map(|at| Arc::new(line(at, 40))).collect()),
    }
}

/// More of everything than there will ever be, names in many scripts, and the largest numbers.
pub fn huge() -> Scene {
    let names = [
        "計算機室の仮想機械-一号",
        "naïve-cafe\u{301}-e\u{301}te\u{301}",
        "\u{202e}evil\u{1b}[31m",
        "👩‍💻-builder",
        "x",
    ];
    let tds: Vec<_> = (0..1_000u32)
        .map(|id| {
            let life = if id % 10 == 9 { Life::Gone } else { Life::Finalized };
            let pages = if id == 0 { u64::MAX } else { u64::from(id) << 8 };
            TdRow {
                failed_zaps: if id % 7 == 0 { u64::MAX } else { 0 },
                violations: if id % 3 == 0 { u64::MAX / 3 } else { 0 },
                cgroup: Some("/machine.slice/machine-qemu\\x2d1\\x2d長い名前.scope/libvirt/emulator".into()),
                ..td(u32::MAX - id, Some(names[id as usize % names.len()]), life, pages)
            }
        })
        .collect();
    let one = found(2);
    let violations: Vec<_> = (1..=10_000)
        .map(|number| {
            let mut found =
                if number == 10_000 { one.clone() } else { Found { story: Vec::new(), ..found(number) } };
            found.number = u64::MAX - 10_000 + number;
            found.td_name = Some(names[number as usize % names.len()].into());
            if number % 5 == 0 {
                (found.verdict.pfn, found.verdict.gfn) = (Some(u64::MAX - 1), Some(u64::MAX));
                (found.verdict.frames, found.verdict.td) = (u64::MAX, Some(u32::MAX));
            }
            Arc::new(found)
        })
        .collect();
    let mut leaves = leaves();
    for row in &mut leaves {
        (row.ok, row.busy, row.errors) = (u64::MAX, u64::MAX, u64::MAX);
        (row.rate, row.busy_rate) = (f64::MAX, 1e12);
        row.latency =
            Some(Summary { count: u64::MAX, min_ns: 0, p50_ns: 1, p99_ns: u64::MAX, max_ns: u64::MAX });
        row.octaves = (0..64).map(|at| Octave { from_ns: 1 << at, count: u64::MAX >> at }).collect();
        row.statuses = (0..200).map(|at| (Status(u64::MAX - (at << 32)), u64::MAX - at)).collect();
    }
    let mut policy = policy();
    policy.audit =
        (0..5_000).map(|at| format!("12:00:{:02} 保留 hold by kernel: done {at}", at % 60)).collect();
    policy.limit_left = Some(u64::MAX);
    let mut history = history(3_000);
    for sample in history.iter_mut().step_by(7) {
        (sample.rates.maps, sample.p99_ns, sample.violations) = (f64::MAX, u64::MAX, u64::MAX);
    }
    Scene {
        marks: Arc::default(),
        about: About {
            source: Source::Recording("夜間の記録-2026-02-18.septwatch".to_owned()),
            phase: Phase::Over("the file ends here".to_owned()),
            hostname: String::new(),
            recording: Some("/var/tmp/again.septwatch".to_owned()),
            ..normal().about
        },
        time: Time { begin_ns: 0, end_ns: u64::MAX, travelling: true, playing: Some(64.0), ..empty().time },
        host: Host {
            tds: u64::MAX,
            tds_seen: u64::MAX,
            lent: [u64::MAX; 6],
            rates: Rates {
                calls: f64::MAX,
                maps: f64::INFINITY,
                zaps: 1e300,
                busy: f64::MAX,
                errors: 1.0,
                records: 1e9,
            },
            latency: Some(Summary {
                count: 1,
                min_ns: 0,
                p50_ns: u64::MAX,
                p99_ns: u64::MAX,
                max_ns: u64::MAX,
            }),
            suspect: u64::MAX,
            vital: Some(Balance {
                produced: u64::MAX,
                received: u64::MAX,
                earlier: u64::MAX,
                lost: u64::MAX,
            }),
            pages: Some(Balance { produced: 0, received: u64::MAX, earlier: 0, lost: 1 }),
            outside: u64::MAX,
            unread: 1,
            missed_releases: u64::MAX,
            degraded: (0..30).map(|at| format!("hook_{at} is missing: 検出できません")).collect(),
            overhead: Some(Overhead {
                agent: f64::MAX,
                counters: Some(Err("perf_event_open: Permission denied".to_owned())),
                ..Overhead::default()
            }),
        },
        history: Arc::new(history),
        leaves: Arc::new(leaves),
        tds: Arc::new(tds),
        td: Some(Arc::new(detail(u32::MAX, 100_000))),
        violations: Arc::new(violations),
        by_kind: Violation::ALL.into_iter().map(|kind| (kind, u64::MAX)).collect(),
        hooks: Arc::new((0..20).flat_map(|_| hooks()).collect()),
        policy: Some(Arc::new(policy)),
        log: Arc::new((0..10_000).map(|at| Arc::new(line(at, 10_000))).collect()),
    }
}

/// Like [`normal`], on a host that keeps no record of SEAMCALLs.
pub fn without_calls() -> Scene {
    let mut scene = normal();
    scene.about.no_calls = Some("SEAMCALLs are not recorded without --calls");
    scene.host.latency = None;
    for leaf in Arc::make_mut(&mut scene.leaves) {
        (leaf.latency, leaf.octaves, leaf.statuses) = (None, Vec::new(), Vec::new());
    }
    scene
}
