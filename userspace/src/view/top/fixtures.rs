//! Scenes for tests: nothing, what is common, and more than any host has. The same at every run.

use std::{collections::BTreeMap, sync::Arc};

use septwatch_common::{
    Leaf, Level, Life, Line, PageKind, State, Status, Suspect, Violation,
    wire::{Frame, Header, Hook, Kind, SeamcallErr, SeamcallOk, TdLife, VERSION, ViolationEvent},
    zap::Zap,
};
use zerocopy::FromZeros as _;

use super::scene::{
    About, Block, Found, Grid, HookRow, Host, LeafRow, LogLine, Overhead, Phase, Policy, Rates, Sample,
    Scene, Source, States, TdDetail, TdRow, Time, Weight,
};
use crate::{
    model::{
        accounting::Balance,
        histogram::{Octave, Summary},
        verdict::Verdict,
    },
    policy::audit::{By, Done, Step},
    recording::header::Clock,
    source::event::Event,
    view::stack::Places,
};

const SECOND: u64 = 1_000_000_000;
/// The moment of all scenes.
const NOW: u64 = 5_000 * SECOND;

/// Nothing has happened: septwatch has just begun.
pub fn empty() -> Scene {
    let clock = Clock { monotonic_ns: NOW, realtime_ns: 1_771_416_224 * SECOND, boottime_ns: NOW };
    Scene {
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

fn td(id: u32, name: Option<&str>, life: Life, pages: u64) -> TdRow {
    let at = f64::from(id % 50);
    TdRow {
        id,
        name: name.map(Into::into),
        cgroup: Some("/machine.slice/qemu-1.scope".into()),
        tgid: id.wrapping_add(4_200),
        comm: "qemu-system-x86".into(),
        tdr: 0x10_4000 + u64::from(id),
        hkid: (32 + id % 1_000) as u16,
        life,
        suspect: Suspect::default(),
        begun_ns: NOW - (u64::from(id % 90) + 1) * 47 * SECOND,
        frames: [pages, pages / 512, 1, 6, 4, 20],
        rates: Rates {
            calls: 800.0 + at,
            maps: 120.0 * at,
            zaps: 78.5 * at,
            busy: at / 3.0,
            errors: 0.0,
            records: 1.0,
        },
        failed_zaps: 0,
        violations: 0,
        held: None,
        bugged_ns: None,
    }
}

fn summary(p50_ns: u64) -> Summary {
    Summary { count: 81_234, min_ns: p50_ns / 2, p50_ns, p99_ns: p50_ns * 7, max_ns: p50_ns * 600 }
}

fn leaves() -> Vec<LeafRow> {
    let row = |leaf, rate: f64, ok: u64, busy, errors, p50_ns| LeafRow {
        leaf,
        ok,
        busy,
        errors,
        rate,
        busy_rate: rate / 100.0,
        statuses: [(Status(0x8000_0200_0000_0080), busy), (Status(0xc000_0b0d_0000_0001), errors)]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect(),
        latency: Some(summary(p50_ns)),
        octaves: [2, 900, 4_000, 1_100, 220, 14, 0, 0, 3]
            .into_iter()
            .zip(9..)
            .map(|(count, at)| Octave { from_ns: 1 << at, count })
            .collect(),
    };
    vec![
        row(Leaf::MemPageAug, 1_240.0, 1_824_110, 812, 0, 2_048),
        row(Leaf::MemRangeBlock, 802.0, 402_114, 12, 0, 1_300),
        row(Leaf::MemTrack, 802.0, 402_102, 0, 0, 900),
        row(Leaf::MemPageRemove, 801.0, 402_099, 40, 3, 1_900),
        row(Leaf::PhymemPageWbinvd, 801.0, 402_099, 0, 0, 3_100),
        row(Leaf::MemSeptAdd, 4.0, 7_220, 1, 0, 2_400),
    ]
}

fn history(count: u64) -> Vec<Sample> {
    let wave = |at: u64, period: u64, height: f64| {
        let part = (at % period) as f64 / period as f64;
        height * (0.55 + 0.45 * (part * std::f64::consts::TAU).sin())
    };
    (0..count)
        .map(|at| Sample {
            time_ns: NOW - (count - 1 - at) * SECOND,
            rates: Rates {
                maps: wave(at, 60, 1_500.0).round(),
                zaps: wave(at, 45, 900.0).round(),
                busy: wave(at, 20, 15.0).round(),
                ..Rates::default()
            },
            lent: 3_500_000 + at * 100,
            violations: if at % 53 == 52 { 1 + at % 3 } else { 0 },
            p50_ns: 2_048,
            p99_ns: 10_000 + wave(at, 33, 9_000.0) as u64,
            ..Sample::default()
        })
        .collect()
}

fn detail(id: u32, blocks: u64) -> TdDetail {
    let block = |at: u64| {
        let mut states = States { mapped: 512, ..States::default() };
        match at % 23 {
            7 | 8 => (states.mapped, states.blocked) = (500, 12),
            12 => (states.mapped, states.removed) = (0, 9),
            19 if at > 60 => states.violated = 1,
            _ => {}
        }
        // A hole where the host has its devices.
        Block { gfn: at * 512 + if at > 40 { 1 << 20 } else { 0 }, states }
    };
    let states = |at: u64| States {
        time_ns: NOW - (119 - at) * SECOND,
        mapped: 200_000 + at * 500,
        blocked: at % 9 * 100,
        removed: at % 5,
        owned: 700,
        violated: at / 30,
    };
    TdDetail {
        id,
        grid: Grid { each: 512, blocks: (0..blocks).map(block).collect() },
        states: (0..120).map(states).collect(),
        leaves: leaves(),
        added: 8_192,
        to_private: 1_824_110,
        to_shared: 402_099,
        reclaimed: 12,
        key_freed_ns: (id > 100).then_some(NOW - 3 * SECOND),
        destroyed_ns: None,
        vcpus_out_ns: Some(NOW - 61 * SECOND),
    }
}

fn header(time_ns: u64, kind: Kind, seq: u64) -> Header {
    Header { time_ns, seq, tgid: 4_203, cpu: 5, kind: kind as u8, version: VERSION }
}

fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

fn violation_event(number: u64) -> ViolationEvent {
    let kinds = [
        Violation::ZapFailed,
        Violation::FreedWhileMapped,
        Violation::ReusedWhileMapped,
        Violation::FreedWhileBlocked,
        Violation::VmBugged,
    ];
    let kind = kinds[number as usize % kinds.len()];
    let mut event = ViolationEvent::new_zeroed();
    event.header = header(NOW - 65 * SECOND + number.min(12) * 5_000_000_000, Kind::Violation, number);
    event.pfn = 0x12_3400 + number;
    event.gfn = 0x8_1000 + number;
    event.line = Line::open(PageKind::Leaf, 3, Level::L4K, event.gfn).with_state(State::Mapped).0;
    event.frames = 1;
    event.tdr = 0x10_4003;
    event.td_id = 3;
    event.tid = 4_217;
    event.td = 3;
    event.violation = kind as u8;
    event.hook = match kind {
        Violation::ZapFailed => Leaf::MemPageRemove as u8,
        Violation::ReusedWhileMapped => Hook::PageAlloc as u8,
        Violation::VmBugged => Hook::MakeAllCpusRequest as u8,
        _ => Hook::PageFree as u8,
    };
    event.suspect = if number % 6 == 5 { Suspect::MISSED.0 } else { 0 };
    event.zap = Zap {
        begun_ns: event.header.time_ns - 12_900_000,
        failed_ns: event.header.time_ns - 12_400_000,
        failed_status: 0xc000_0b0d_0000_0001,
        failed_leaf: Leaf::MemPageRemove as u8,
        ..Zap::default()
    };
    if kind == Violation::ReusedWhileMapped {
        event.released_ns = event.header.time_ns - 3_100;
    }
    event.comm = comm("qemu-system-x86");
    event
}

fn found(number: u64) -> Found {
    let event = violation_event(number);
    let verdict = Verdict::of(&event).unwrap_or_else(|| unreachable!("a violation of a known number"));
    let at = event.header.time_ns;
    let call = |time_ns, leaf: Leaf, status| {
        let mut call = SeamcallOk::new_zeroed();
        call.header = header(time_ns, Kind::SeamcallOk, 0);
        (call.tdr, call.pfn, call.gfn) = (0x10_4003, event.pfn, event.gfn);
        (call.leaf, call.tid) = (leaf as u8, 4_217);
        Event::Call(SeamcallErr { call, status, ext_err1: 0, ext_err2: 0 })
    };
    let mut life = TdLife::new_zeroed();
    life.header = header(at - 800 * SECOND, Kind::TdLife, 0);
    (life.tdr, life.id, life.hkid, life.life) = (0x10_4003, 3, 35, Life::Created as u8);
    life.comm = comm("qemu-system-x86");
    let frame = Frame {
        header: Header { tgid: 977, cpu: 11, ..header(at - 2_100, Kind::Frame, 0) },
        pfn: event.pfn,
        tid: 977,
        hook: Hook::PageFree as u8,
        zero: [0; 3],
    };
    let story = vec![
        Event::Life(life),
        call(at - 63 * SECOND, Leaf::MemPageAug, 0),
        call(at - 12_900_000, Leaf::MemRangeBlock, 0),
        call(at - 12_700_000, Leaf::MemTrack, 0),
        call(at - 12_400_000, Leaf::MemPageRemove, 0xc000_0b0d_0000_0001),
        Event::Frame(frame),
        Event::Violation(Box::new(event)),
    ];
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let places = Places {
        kernel: names(&[
            "free_unref_folios+0x1c4",
            "folios_put_refs+0x1a1",
            "truncate_inode_pages_range+0x2f3",
            "kvm_gmem_fallocate+0x1d2",
            "vfs_fallocate+0x13e",
            "__x64_sys_fallocate+0x45",
            "do_syscall_64+0x84",
        ]),
        user: names(&["libc.so.6+0x11c3da", "qemu-system-x86_64+0x6a31c2"]),
    };
    let step = Step {
        r#type: "decision",
        policy: "contain".to_owned(),
        rule: "hold-broken-td".to_owned(),
        step: 0,
        reaction: "hold",
        violation: verdict.violation.name(),
        confidence: verdict.confidence(),
        violation_ns: at,
        td: verdict.td,
        tdr_pfn: verdict.tdr,
        pfn: verdict.pfn,
        gfn: verdict.gfn,
        pid: Some(4_203),
        permit: "do",
        why: None,
        by: By::Kernel,
        asked_ns: at,
        done_ns: Some(at + 900),
        result: Some(Done::Done),
        detail: "4096 frames".to_owned(),
        latency_ns: Some(900),
    };
    let stop = Step {
        reaction: "stop",
        step: 1,
        by: By::Agent,
        permit: "refused",
        why: Some("only 1 of an hour, and that was done".to_owned()),
        done_ns: None,
        result: None,
        detail: String::new(),
        latency_ns: None,
        ..step.clone()
    };
    let td_name = Some("ci-runner-17".into());
    Found { number, verdict, places, td_name, story, story_is_cut: number % 4 == 0, steps: vec![step, stop] }
}

fn hooks() -> Vec<HookRow> {
    let bound = |name: &str, how: &str, purpose, lost: &[&'static str]| HookRow {
        name: name.to_owned(),
        purpose,
        bound: Some(how.to_owned()),
        missing: None,
        lost: lost.to_vec(),
        required: false,
    };
    vec![
        HookRow {
            bound: None,
            missing: Some("no such function in this kernel".to_owned()),
            ..bound("kvm_gmem_error_folio", "", "memory failure", &["poisoned-while-mapped"])
        },
        bound("mm_page_free", "tp_btf", "releases", &["freed-while-mapped", "freed-while-blocked"]),
        bound("mm_page_alloc", "tp_btf", "reuse", &["reused-while-mapped"]),
        bound("tdh_mem_page_aug", "fexit", "mapping", &["map-failed", "double-map"]),
        bound("tdh_mem_page_remove", "fexit", "zaps", &["zap-failed"]),
        bound("kvm_make_all_cpus_request", "fentry, called from kvm_vm_bugged", "broken VMs", &["vm-bugged"]),
    ]
}

fn policy() -> Policy {
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    let rule = |name: &str, ladder: &str| (name.to_owned(), ladder.to_owned());
    Policy {
        name: "contain".to_owned(),
        armed: true,
        may_be_armed: true,
        rules: vec![
            rule("hold-broken-td", "zap-failed, vm-bugged (certain): hold, then stop, then notify"),
            rule("tell", "everything: log, notify"),
        ],
        gaps: owned(&["stop: the VMM has no QMP socket for TD 4"]),
        limit_left: Some(2),
        kernel_rules: 1,
        holds: owned(&["TD 3 (ci-runner-17): 4,096 frames since 1m 02s"]),
        latencies: owned(&["hold by kernel: 12, min 800 ns, p50 900 ns, p99 1.4 us, max 1.4 us"]),
        audit: owned(&[
            "12:02:40 armed by uid 0 (pid 991)",
            "12:02:43 hold TD 3 by kernel: done 900 ns after zap-failed",
            "12:02:43 stop TD 3 by agent: refused: only 1 of an hour",
        ]),
        folder: "/var/log/septwatch".to_owned(),
    }
}

fn line(at: u64, count: u64) -> LogLine {
    let weight = [Weight::Plain, Weight::Note, Weight::Reaction, Weight::Violation][at as usize % 4];
    let text = match weight {
        Weight::Plain => "TD 5 key-freed: TDR in frame 0x104005, HKID 37, 3000 frames lent, by qemu (4205)",
        Weight::Note => "the hold keeper runs as pid 1023",
        Weight::Reaction => {
            "hold (policy contain, rule hold-broken-td) by kernel: done 900 ns after the violation"
        }
        Weight::Violation => "freed-while-mapped [certain] pfn 0x123402 gfn 0x81002 TD 3",
    };
    LogLine {
        time_ns: NOW - (count - at) * SECOND / 4,
        weight,
        td: (at % 4 != 1).then_some(3),
        text: text.to_owned(),
    }
}
