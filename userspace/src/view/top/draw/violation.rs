//! One violation: its text, on the screen and as a report that can be mailed.

use std::fmt::Write as _;

use ratatui::text::{Line, Span};
use septwatch_common::wire::Header;

use super::{Look, frame::offset, pen::cells, wrap::wrap};
use crate::{
    export::rows::rfc3339,
    model::{text, verdict::Verdict},
    policy::audit::Done,
    source::event::Event,
    view::{
        lines,
        stack::Places,
        top::scene::{Found, Scene, Source},
    },
};

/// A part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The violation in one line, and whether it is certain.
    Headline(String, bool),
    /// What follows is about this.
    Section(&'static str),
    /// A sentence.
    Text(String),
    /// Something that happened.
    Step {
        /// When, relative to the violation.
        offset: String,
        /// Whether it went wrong.
        is_wrong: bool,
        /// What.
        what: String,
        /// Who was running, where; empty where that is not known.
        who: String,
    },
}

/// Everything that is known of a violation, in the order in which it is read.
pub fn lines(found: &Found, scene: &Scene) -> Vec<Part> {
    let verdict = &found.verdict;
    let mut head = lines::headline(verdict);
    if let Some(name) = &found.td_name {
        let _ = write!(head, " ({name})");
    }
    let mut parts = vec![Part::Headline(head, verdict.suspect.is_certain())];
    // The stacks are a part of their own.
    parts.extend(lines::details(verdict, &Places::default()).into_iter().map(Part::Text));
    if verdict.suspect.is_certain() {
        parts.push(Part::Text("certain: nothing was missed that could make it wrong".to_owned()));
    }
    parts.push(Part::Section("Life of the frame"));
    parts.extend(life(found, scene));
    parts.push(Part::Section("What the policy did"));
    parts.extend(reactions(found, scene));
    for (title, places) in [("Kernel stack", &found.places.kernel), ("User stack", &found.places.user)] {
        parts.push(Part::Section(title));
        if places.is_empty() {
            parts.push(Part::Text("none was taken".to_owned()));
        }
        // Without the programs that saw it.
        parts.extend(places.iter().filter(|name| !name.starts_with("bpf_")).cloned().map(Part::Text));
    }
    parts
}

fn life(found: &Found, scene: &Scene) -> Vec<Part> {
    let mut parts = Vec::new();
    if found.story.is_empty() {
        let why = scene.about.no_calls.unwrap_or("no record of it was kept");
        parts.push(Part::Text(format!("not known: {why}")));
    } else if found.story_is_cut {
        parts.push(Part::Text("what came before is not known any more".to_owned()));
    }
    for event in &found.story {
        let verdict = match event {
            Event::Violation(event) => Verdict::of(event),
            _ => None,
        };
        let is_wrong = verdict.is_some() || matches!(event, Event::Call(call) if call.status != 0);
        parts.push(Part::Step {
            offset: offset(event.header().time_ns, found.verdict.time_ns),
            is_wrong,
            what: lines::event(event, verdict.as_ref()),
            who: who(event, found, scene),
        });
    }
    parts
}

/// Who was running: SEAMCALLs do not say the name, but it is known of the processes that are told of.
fn who(event: &Event, found: &Found, scene: &Scene) -> String {
    let Header { tgid, cpu, .. } = *event.header();
    let of_td = || {
        let td = found.verdict.td?;
        let td = scene.tds.iter().find(|row| row.id == td)?;
        (td.tgid == tgid).then(|| td.comm.to_string())
    };
    let comm = match event {
        // Its line says who.
        Event::Life(_) => return format!("CPU {cpu}"),
        Event::Vm(event) => Some(text(&event.comm)),
        Event::Violation(event) => Some(text(&event.comm)),
        Event::Call(_) | Event::Frame(_) if tgid == found.verdict.tgid => Some(found.verdict.comm.clone()),
        Event::Call(_) | Event::Frame(_) => of_td(),
    };
    match comm {
        Some(comm) => format!("{comm} ({tgid}), CPU {cpu}"),
        None => format!("pid {tgid}, CPU {cpu}"),
    }
}

fn reactions(found: &Found, scene: &Scene) -> Vec<Part> {
    if found.steps.is_empty() {
        let none = if scene.policy.is_some() {
            "nothing: no rule is about it"
        } else {
            "nothing: no policy is followed"
        };
        return vec![Part::Text(none.to_owned())];
    }
    let step = |step: &crate::policy::audit::Step| Part::Step {
        offset: offset(step.done_ns.unwrap_or(step.asked_ns), found.verdict.time_ns),
        is_wrong: step.result == Some(Done::Failed),
        what: lines::reaction(step),
        who: String::new(),
    };
    found.steps.iter().map(step).collect()
}

/// Cells that offsets take.
const OFFSET: u16 = 9;

/// The text in the look of the screen, wrapped to this width. Who was running is said where it changes.
pub(super) fn styled(parts: &[Part], look: &Look, width: u16) -> Vec<Line<'static>> {
    let (palette, symbols) = (look.palette, look.symbols);
    let mut styled = Vec::new();
    let mut before = "";
    for part in parts {
        let (line, indent) = match part {
            Part::Headline(text, certain) => {
                let (mark, style) =
                    if *certain { (symbols.bad, palette.bad) } else { (symbols.warn, palette.warn) };
                (Line::styled(format!("{mark} {text}"), style), 2)
            }
            Part::Section(title) => {
                let rule = symbols.rule.repeat(width.saturating_sub(cells(title) + 1).into());
                let spans = vec![
                    Span::styled((*title).to_owned(), palette.head),
                    Span::styled(format!(" {rule}"), palette.quiet),
                ];
                styled.push(Line::default());
                (Line::from(spans), 0)
            }
            Part::Text(text) => (Line::raw(text.clone()), 2),
            Part::Step { offset, is_wrong, what, who } => {
                let fill = OFFSET.saturating_sub(cells(offset)).into();
                let (mark, style) =
                    if *is_wrong { (symbols.bad, palette.bad) } else { (symbols.step, palette.good) };
                let mut spans = vec![
                    Span::styled(format!("{:fill$}{offset} ", ""), palette.quiet),
                    Span::styled(mark, style),
                    Span::raw(format!(" {what}")),
                ];
                if who != before {
                    spans.push(Span::styled(format!("  {who}"), palette.quiet));
                }
                before = who;
                (Line::from(spans), OFFSET + 5)
            }
        };
        styled.extend(wrap(&line, width, indent));
    }
    styled
}

/// The same as plain text, with what a reader who was not there must know.
pub fn report(found: &Found, scene: &Scene) -> String {
    let about = &scene.about;
    let mut report = format!("septwatch {}: violation {}\n\n", env!("CARGO_PKG_VERSION"), found.number);
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(report, "{name:<12} {value}");
        }
    };
    let time_ns = found.verdict.time_ns;
    fact("time", &rfc3339(scene.time.clock.realtime_of(time_ns)));
    fact("monotonic", &format!("{time_ns} ns"));
    match &about.source {
        Source::Live => {}
        Source::Demo(name) => fact("demo", name),
        Source::Recording(name) => fact("recording", name),
    }
    fact("host", &about.hostname);
    fact("kernel", &about.kernel);
    fact("TDX module", about.tdx_module.as_deref().unwrap_or_default());
    report.push('\n');
    for part in lines(found, scene) {
        let _ = match part {
            Part::Headline(text, _) => writeln!(report, "{text}"),
            Part::Section(title) => writeln!(report, "\n{title}"),
            Part::Text(text) => writeln!(report, "  {text}"),
            Part::Step { offset, is_wrong, what, who } => {
                let mark = if is_wrong { "X" } else { " " };
                writeln!(report, "{}", format!("  {offset:>9} {mark} {what}  {who}").trim_end())
            }
        };
    }
    report
}
