//! Events as lines for people.

use std::{fmt::Write as _, iter};

use septwatch_common::{
    Leaf, Level, Life, Line, Status, Violation,
    kvm::{GmemOp, VmStage},
    wire::{Hook, VmLife},
    zap::PFN_UNKNOWN,
};

use crate::{
    model::{
        histogram::Summary,
        latency::Latencies,
        text,
        verdict::{Cause, Verdict},
        windows::Windows,
    },
    policy::audit::{Done, Step},
    source::{
        event::Event,
        walk::resync::{Outcome, Walked},
    },
    view::{histogram, stack::Places},
};

/// What came of taking over a TD that ran already.
pub fn walked(outcome: &Outcome) -> String {
    let Outcome { td, tgid, walked, tables, frames, entered, took_us, .. } = outcome;
    let (tables, frames) = (plural(*tables, "table"), plural(*frames, "frame"));
    let took = span(took_us.saturating_mul(1000));
    let so = match walked {
        Walked::Complete => "complete".to_owned(),
        Walked::Suspect(why) => format!("verdicts on it stay suspect: {why}"),
        Walked::Over => "it ended meanwhile".to_owned(),
    };
    format!(
        "TD {td} (pid {tgid}) ran already: {tables} of KVM, {frames}, {entered} taken over in {took}; {so}"
    )
}

/// So many of something.
pub fn plural(count: u64, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// A step of a policy: what was done about a violation, by whom and how soon, or why it was not.
pub fn reaction(step: &Step) -> String {
    let mut line =
        format!("{} (policy {}, rule {}) by {}: ", step.reaction, step.policy, step.rule, step.by.name());
    line += match (step.permit, step.result) {
        ("dry", _) => "would be done",
        ("refused", _) => "refused",
        (_, Some(Done::Done)) => "done",
        (_, Some(Done::Failed)) => "FAILED",
        (_, Some(Done::Skipped)) => "skipped",
        (_, None) => "under way",
    };
    if let Some(latency_ns) = step.latency_ns {
        line += &format!(" {} after the violation", span(latency_ns));
    }
    for more in step.why.iter().chain(Some(&step.detail).filter(|detail| !detail.is_empty())) {
        line += ": ";
        line += more;
    }
    line
}

/// A span of time in the unit that reads best.
pub fn span(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// What happened, in one line without its time. `verdict` is that of a violation.
pub fn event(event: &Event, verdict: Option<&Verdict>) -> String {
    match (event, verdict) {
        (_, Some(verdict)) => headline(verdict),
        (Event::Life(event), _) => {
            let life = Life::from_number(event.life).map_or("?", Life::name);
            let id = event.id;
            format!(
                "TD {id} {life}: TDR in frame {:#x}, HKID {}, {} frames lent, by {} ({})",
                event.tdr,
                event.hkid,
                event.lent,
                text(&event.comm),
                event.header.tgid
            )
        }
        (Event::Call(event), _) => {
            let call = &event.call;
            let name = Leaf::from_number(u64::from(call.leaf)).map_or("?", Leaf::name);
            let mut line = format!("{name:<23}");
            let level = Level::from_tdx(u64::from(call.level)).map_or("?", Level::name);
            if call.gfn != 0 {
                let _ = write!(line, " gfn {:#x} {level}", call.gfn);
            }
            if call.pfn != PFN_UNKNOWN {
                let _ = write!(line, " pfn {:#x}", call.pfn);
            }
            let _ = match event.status {
                0 => write!(line, " ok"),
                status => write!(line, " {}", Status(status)),
            };
            line
        }
        (Event::Frame(event), _) => {
            let what = if event.hook == Hook::PageAlloc as u8 { "handed out" } else { "received" };
            format!("page allocator {what} frame {:#x}, whose line is open", event.pfn)
        }
        (Event::Vm(event), _) => vm(event),
        (Event::Violation(event), None) => {
            format!("a violation of kind {}, which this version does not know", event.violation)
        }
    }
}

fn vm(event: &VmLife) -> String {
    let id = event.id;
    match VmStage::from_number(event.stage) {
        Some(VmStage::Dead) => format!("TD {id}: KVM gives the VM up (vm_dead)"),
        Some(VmStage::VcpusOut) if event.bugged_ns != 0 => {
            let since = span(event.header.time_ns.saturating_sub(event.bugged_ns));
            format!("TD {id}: the last vCPU is out of the guest, {since} after vm_bugged")
        }
        Some(VmStage::VcpusOut) => format!("TD {id}: the last vCPU is out of the guest"),
        Some(VmStage::Destroyed) => format!("TD {id}: the VM is destroyed, {} frames still lent", event.lent),
        None => format!("TD {id}: a stage of kind {}, which this version does not know", event.stage),
    }
}

fn summary(s: &Summary) -> String {
    let [min, p50, p99, max] = [s.min_ns, s.p50_ns, s.p99_ns, s.max_ns].map(span);
    format!("{:>6} x  min {min}, p50 {p50}, p99 {p99}, max {max}", s.count)
}

/// The spans that were seen, a line each.
pub fn windows(windows: &Windows) -> Vec<String> {
    windows.summaries().map(|(which, spans)| format!("{:<46} {}", which.words(), summary(&spans))).collect()
}

/// The latencies that were measured: of each leaf a line, and a histogram below it.
pub fn latencies(latencies: &Latencies) -> Vec<String> {
    let of = |(leaf, spans): (Leaf, Summary)| {
        let rows = histogram::rows(&latencies.octaves(leaf));
        let head = format!("{:<23} {}", leaf.name(), summary(&spans));
        iter::once(head).chain(rows.into_iter().map(|row| format!("  {row}")))
    };
    latencies.summaries().flat_map(of).collect()
}

/// A violation in one line.
pub fn headline(verdict: &Verdict) -> String {
    let mut line = format!("{} [{}]", verdict.violation.name(), verdict.confidence());
    if let Some(pfn) = verdict.pfn {
        let _ = write!(line, " pfn {pfn:#x}");
    }
    if let Some(gfn) = verdict.gfn {
        let _ = write!(line, " gfn {gfn:#x}");
    }
    if let Some(td) = verdict.td {
        let _ = write!(line, " TD {td}");
    }
    line
}

/// What a violation means and how it came about: lines of their own.
pub fn details(verdict: &Verdict, places: &Places) -> Vec<String> {
    let mut lines = vec![meaning(verdict)];
    if verdict.line.is_some_and(Line::is_walked) {
        lines.push("lent before septwatch began: taken over from KVM's mirror page table".to_owned());
    }
    if let Some(failed) = verdict.failed {
        let mut line = match failed.leaf {
            Some(leaf) => format!("{} answered {}", leaf.name(), failed.status),
            None => "KVM gave the zap up before its first SEAMCALL".to_owned(),
        };
        if let Some((entry, state)) = failed.entry {
            let _ = write!(line, "; S-EPT entry {entry}, {state}");
        }
        if let Some(since) = verdict.since_failed_ns {
            let _ = write!(line, "; {} before", span(since));
        }
        lines.push(line);
    }
    match verdict.cause {
        Some(Cause::ZapNeverTried) => lines.push("no step of a zap was ever tried".to_owned()),
        Some(Cause::ZapUnderWay) => lines.push("its zap had begun and was not finished".to_owned()),
        Some(Cause::ZapFailed) | None => {}
    }
    if let Some(since) = verdict.invalidation_ns {
        lines.push(format!("an invalidation of this TD has been under way for {}", span(since)));
    }
    if let Some(let_go) = verdict.let_go {
        let op = GmemOp::from_number(let_go.op).name().map_or(String::new(), |op| format!(" ({op})"));
        let mut line = format!("guest_memfd inode {} let go of index {}{op}", let_go.inode, let_go.index);
        let _ = write!(line, " {} before", span(verdict.time_ns.saturating_sub(let_go.time_ns)));
        if let_go.held() != 0 {
            let _ = write!(line, "; {} references more held it until now", let_go.held());
        }
        if let_go.tid != verdict.tid {
            let _ = write!(line, "; the last reference was dropped by another thread than {}", let_go.tid);
        }
        lines.push(line);
    }
    if let Some(window) = verdict.window_ns {
        lines.push(format!("window: {} from release to reuse", span(window)));
    }
    if !verdict.suspect.is_certain() {
        lines.push(format!("suspect: {}", verdict.suspect.reasons().collect::<Vec<_>>().join(", ")));
    }
    lines.push(format!(
        "seen at {} on CPU {}, running {} (pid {}, tid {})",
        verdict.hook, verdict.cpu, verdict.comm, verdict.tgid, verdict.tid
    ));
    if !places.kernel.is_empty() {
        // Without the programs that saw it and the trampolines that lead to programs.
        let names = places.kernel.iter().filter(|name| !name.starts_with("bpf_")).take(8);
        lines.push(format!("kernel stack: {}", names.map(String::as_str).collect::<Vec<_>>().join(" < ")));
    }
    if !places.user.is_empty() {
        let names = places.user.iter().take(8).map(String::as_str);
        lines.push(format!("user stack: {}", names.collect::<Vec<_>>().join(" < ")));
    }
    lines
}

fn meaning(verdict: &Verdict) -> String {
    let kind = verdict.line.map_or("page", |line| line.kind().name());
    match verdict.violation {
        Violation::FreedWhileMapped => {
            format!("the page allocator received a {kind} that the S-EPT still maps: a use-after-free")
        }
        Violation::FreedWhileBlocked => {
            format!("the page allocator received a {kind} that was blocked and never removed from the S-EPT")
        }
        Violation::FreedUnflushed => {
            "the page allocator received a removed page whose cache lines may still be written back"
                .to_owned()
        }
        Violation::FreedWhileOwned => {
            format!("the page allocator received a {kind} that the TDX module was never asked to give back")
        }
        Violation::ReusedWhileMapped => {
            format!("the page allocator handed the frame out again while the TDX module holds it as {kind}")
        }
        Violation::ZapFailed => "a step of a zap failed, and KVM gives the zap up there".to_owned(),
        Violation::MapFailed => "the TDX module refused the page".to_owned(),
        Violation::DoubleMap => "the TDX module mapped a frame that it holds already".to_owned(),
        Violation::OutOfOrder => "a SEAMCALL succeeded that must not without those before it".to_owned(),
        Violation::TeardownLeak => {
            format!("the TD ended, and {} frames did not come back", verdict.frames)
        }
        Violation::HostAccessWhileMapped => "the host touched a page that a TD maps".to_owned(),
        Violation::PoisonedWhileMapped => "memory failure struck a page that a TD maps".to_owned(),
        Violation::MigratedWhileMapped => "a page that a TD maps was moved".to_owned(),
        Violation::VmBugged => "KVM declared the VM bugged".to_owned(),
    }
}
