//! The report in words.

use septwatch_common::{Status, Violation, kvm::GmemOp};

use super::{Case, Told, paper::Paper};
use crate::{
    explain::{self, Call, Registers, words::shown},
    model::verdict::Verdict,
    recording::header::{Header, Origin},
    source::event::Event,
    view::{lines, stack::Places},
};

/// Frames of a stack that are told.
const STACK: usize = 24;

/// Writes what was collected; as Markdown, or as plain text for a mail.
pub fn write(told: &Told, markdown: bool) -> String {
    let mut paper = Paper::new(markdown);
    let kinds: Vec<_> = told.cases.iter().map(|case| case.target.verdict.violation.name()).collect();
    match kinds.as_slice() {
        [] => paper.heading("septwatch: no violation"),
        [one] => paper.heading(&format!("septwatch: {one} on Linux {}", shown(&told.header.kernel.release))),
        [one, ..] => {
            let (count, release) = (kinds.len(), shown(&told.header.kernel.release));
            paper.heading(&format!("septwatch: {count} violations, the first {one}, on Linux {release}"));
        }
    }
    system(&mut paper, told);
    for case in &told.cases {
        violation(&mut paper, case, &told.header);
    }
    whole(&mut paper, told);
    paper.finish()
}

fn system(paper: &mut Paper, told: &Told) {
    let header = &told.header;
    paper.heading("System");
    let kernel = &header.kernel;
    paper.item("kernel", &shown(&kernel.release));
    paper.item("build id", &kernel.build_id.as_deref().map_or("not known".to_owned(), shown));
    paper.item("TDX module", &kernel.tdx_module.as_deref().map_or("version not known".to_owned(), shown));
    paper.item("septwatch", &shown(&header.septwatch));
    if let Origin::Demo { scenarios, seed } = &header.origin {
        let scenarios = shown(&scenarios.join(", "));
        paper.item("source", &format!("a demonstration, no real TD: {scenarios}, seed {seed}"));
    }
    let missing: Vec<_> = header.plan.iter().filter(|hook| hook.bound.is_none()).collect();
    let bound = header.plan.len() - missing.len();
    let mut hooks = format!("{bound} of {} attached", header.plan.len());
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|hook| shown(&hook.name)).collect();
        hooks.push_str(&format!("; missing: {}", names.join(", ")));
    }
    paper.item("hooks", &hooks);
}

fn violation(paper: &mut Paper, case: &Case, header: &Header) {
    let target = &case.target;
    let verdict = &target.verdict;
    paper.heading(&format!("Violation {}: {}", target.number, lines::headline(verdict)));
    paper.says(&sentence(verdict, &target.places));
    confidence(paper, verdict);
    if let Some(td) = verdict.td {
        let tdr = verdict.tdr.map_or(String::new(), |tdr| format!(", TDR in frame {tdr:#x}"));
        paper.item("TD", &format!("{td}{tdr}"));
    }
    figures(paper, case);
    failing(paper, case);
    life(paper, case);
    around(paper, case);
    stacks(paper, "Stack of the violation", verdict, &target.places);
    if let Some(bugged) = case.bugged.as_ref().filter(|bugged| bugged.event != target.event) {
        stacks(paper, "Stack of vm_bugged", &bugged.verdict, &bugged.places);
    }
    paper.heading("Again");
    let said = if case.is_found_again {
        "The ledger, run over the recorded SEAMCALLs, releases and allocations once more, finds the same violation."
    } else if verdict.violation > Violation::TeardownLeak {
        "Only KVM's own functions tell this violation: the ledger cannot find it in SEAMCALLs, releases and \
         allocations once more."
    } else {
        "The ledger, run over what is recorded once more, does not find it: the recording does not have all that \
         went before."
    };
    paper.says(said);
    let after_ms = target.event.header.time_ns.saturating_sub(header.clock.monotonic_ns) / 1_000_000;
    paper.lines(&[
        format!("septwatch replay FILE --at {}ms", after_ms.saturating_sub(1).max(1)),
        format!("septwatch minimize FILE --violation {}", target.number),
    ]);
}

/// What was found, in a sentence or two.
fn sentence(verdict: &Verdict, places: &Places) -> String {
    let first = lines::details(verdict, places).into_iter().next().unwrap_or_default();
    let mut letters = first.chars();
    let upper = letters.next().map(|letter| letter.to_uppercase().collect::<String>()).unwrap_or_default();
    let who = shown(&verdict.comm);
    format!("{upper}{}. Seen at {}, running {who} (pid {}).", letters.as_str(), verdict.hook, verdict.tgid)
}

fn confidence(paper: &mut Paper, verdict: &Verdict) {
    let text = if verdict.suspect.is_certain() {
        "certain: the TD was seen from its creation on, and nothing was missed".to_owned()
    } else {
        format!("suspect: {}", verdict.suspect.reasons().collect::<Vec<_>>().join(", "))
    };
    paper.item("confidence", &text);
}

fn figures(paper: &mut Paper, case: &Case) {
    let verdict = &case.target.verdict;
    let mut said = Vec::new();
    if let Some(ns) = verdict.since_failed_ns {
        said.push(format!("{} from the failed SEAMCALL to this", lines::span(ns)));
    }
    if let Some(ns) = verdict.window_ns {
        said.push(format!("{} from the release to the reuse", lines::span(ns)));
    }
    if let Some(ns) = verdict.invalidation_ns {
        said.push(format!("an invalidation was under way for {}", lines::span(ns)));
    }
    if let Some(bugged) = &case.bugged {
        let (own, other) = (verdict.time_ns, bugged.event.header.time_ns);
        if own > other {
            said.push(format!("{} after vm_bugged", lines::span(own - other)));
        } else if own < other {
            said.push(format!("{} before vm_bugged", lines::span(other - own)));
        }
    }
    if !said.is_empty() {
        paper.item("window", &said.join("; "));
    }
}

/// The SEAMCALL that failed, as `septwatch explain` has it.
fn failing(paper: &mut Paper, case: &Case) {
    let Some(failed) = case.target.verdict.failed else { return };
    let Some(leaf) = failed.leaf else {
        paper.item("failed", "KVM gave the zap up before its first SEAMCALL");
        return;
    };
    let zap = &case.target.event.zap;
    let registers = Registers { rcx: Some(zap.ext_err1), rdx: Some(zap.ext_err2), r8: None };
    // That a VM is bugged comes with the status alone.
    let registers = if failed.entry.is_some() { registers } else { Registers::default() };
    let call = Call { leaf: Some(leaf as u64), unknown_leaf: None, status: failed.status, registers };
    let words = explain::status(&call);
    paper.item("failed", &format!("{} answered {}", leaf.name(), words.shown));
    for text in &words.registers {
        paper.item("", text);
    }
    for reading in &words.readings {
        if let Some(means) = reading.means {
            paper.item("which means", means);
        }
        for next in &reading.kvm {
            let kernels = if next.kernels.is_empty() { String::new() } else { format!("{}: ", next.kernels) };
            paper.item("KVM then", &format!("{kernels}{} ({})", next.does, next.source));
        }
    }
}

/// A moment as seen from another.
fn relative(time_ns: u64, zero_ns: u64) -> String {
    if time_ns < zero_ns {
        format!("-{}", lines::span(zero_ns - time_ns))
    } else {
        format!("+{}", lines::span(time_ns - zero_ns))
    }
}

fn life(paper: &mut Paper, case: &Case) {
    let zero_ns = case.target.event.header.time_ns;
    paper.heading("Life of the page since it was lent, by time from the violation");
    let mut bugged = case.bugged.as_ref();
    let half = case.life.events.len().div_ceil(2);
    for (at, event) in case.life.events.iter().enumerate() {
        if at == half && case.life.skipped != 0 {
            paper.moment("...", &format!("{} more", case.life.skipped));
        }
        let time_ns = event.header().time_ns;
        // That the VM is bugged names no page.
        if let Some(bugged) = bugged.take_if(|bugged| bugged.event.header.time_ns < time_ns) {
            let by = format!("by {} ({})", shown(&bugged.verdict.comm), bugged.verdict.tgid);
            let moment = relative(bugged.event.header.time_ns, zero_ns);
            paper.moment(&moment, &format!("! {}, {by}", lines::headline(&bugged.verdict)));
        }
        paper.moment(&relative(time_ns, zero_ns), &said(event));
    }
    if case.life.events.is_empty() {
        paper.says("Nothing of it is recorded.");
    }
}

/// An event, and who was running.
fn said(event: &Event) -> String {
    let header = event.header();
    match event {
        Event::Violation(violation) => {
            let Some(verdict) = Verdict::of(violation) else { return lines::event(event, None) };
            let by = format!("by {} ({})", shown(&verdict.comm), verdict.tgid);
            let mut text = format!("! {}, at {}, {by}", lines::headline(&verdict), verdict.hook);
            if let Some(let_go) = verdict.let_go {
                let op = GmemOp::from_number(let_go.op).name().map_or(String::new(), |op| format!(" ({op})"));
                let since = lines::span(header.time_ns.saturating_sub(let_go.time_ns));
                text.push_str(&format!(
                    "; guest_memfd let go of it {since} before{op}, thread {}",
                    let_go.tid
                ));
            }
            text
        }
        Event::Call(call) => {
            let text = lines::event(event, None);
            let words: Vec<_> = text.split_whitespace().collect();
            let entry = septwatch_common::sept::described(Status(call.status), call.ext_err1, call.ext_err2);
            let entry =
                entry.map_or(String::new(), |(entry, place)| format!("; S-EPT entry: {place}; {entry}"));
            format!("{} on CPU {} by {}/{}{entry}", words.join(" "), header.cpu, header.tgid, call.call.tid)
        }
        Event::Frame(frame) => {
            let text = lines::event(event, None);
            format!("{text} on CPU {} by {}/{}", header.cpu, header.tgid, frame.tid)
        }
        Event::Life(_) | Event::Vm(_) => lines::event(event, None),
    }
}

fn around(paper: &mut Paper, case: &Case) {
    let (what, zero_ns) = match &case.bugged {
        Some(bugged) => ("vm_bugged", bugged.event.header.time_ns),
        None if case.target.verdict.failed.is_some() => ("the SEAMCALL that failed", case.moment_ns),
        None => ("the violation", case.moment_ns),
    };
    if case.around.is_empty() {
        return;
    }
    paper.heading(&format!("SEAMCALLs of the TD around {what}, by time from it"));
    let mut is_told = case.bugged.is_none();
    let mark = |paper: &mut Paper| paper.moment("0", "KVM_BUG_ON: the VM is bugged");
    for event in &case.around {
        let time_ns = event.header().time_ns;
        if !is_told && time_ns > zero_ns {
            mark(paper);
            is_told = true;
        }
        paper.moment(&relative(time_ns, zero_ns), &said(event));
    }
    if !is_told {
        mark(paper);
    }
}

fn stacks(paper: &mut Paper, title: &str, verdict: &Verdict, places: &Places) {
    paper.heading(&format!("{title}, innermost first"));
    // Programs that looked, and the trampolines that lead to them, are not part of the story.
    let kernel = places.kernel.iter().filter(|name| !name.starts_with("bpf_"));
    for (name, stack) in [("kernel", kernel.collect::<Vec<_>>()), ("user", places.user.iter().collect())] {
        if stack.is_empty() {
            paper.says(&format!("{name}: none was taken"));
            continue;
        }
        paper.says(&format!("{name}, {} ({}):", shown(&verdict.comm), verdict.tgid));
        let lines: Vec<_> =
            stack.into_iter().take(STACK).map(|place| format!("  {}", shown(place))).collect();
        paper.lines(&lines);
    }
}

fn whole(paper: &mut Paper, told: &Told) {
    paper.heading("The recording as a whole");
    let told_of = told.cases.len();
    paper.item("violations", &format!("{}, of which {told_of} are told here", told.total));
    for line in &told.windows {
        let words: Vec<_> = line.split_whitespace().collect();
        paper.item("window", &words.join(" "));
    }
    if let Some(minimized) = &told.header.minimized {
        paper.item(
            "minimized",
            &format!(
                "what shows violation {} of a recording with {} events more",
                minimized.number, minimized.left_out
            ),
        );
    }
    let missing = match (told.lost, told.damages) {
        (0, 0) => "nothing".to_owned(),
        (lost, 0) => format!("{lost} page records"),
        (lost, damages) => format!("{lost} page records; damaged at {damages} places"),
    };
    paper.item("missing", &missing);
    let again = match &told.differences {
        None => "not possible: not all page records are recorded".to_owned(),
        Some(compared) => {
            let (found, recorded) = (compared.not_found.count, compared.not_recorded.count);
            format!(
                "the ledger run again: {} violations as recorded, {found} not found, {recorded} not recorded, {} that \
                 cannot be compared",
                compared.agreed, compared.not_compared
            )
        }
    };
    paper.item("again", &again);
}
