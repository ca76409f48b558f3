//! The demo's timeline and table.

use std::io::{self, Write};

use septwatch_common::Leaf;
use serde_json::json;

use super::{Comparison, Shown, oracle::Key};
use crate::{
    model::{latency::Latencies, verdict::Verdict},
    source::{demo::scenarios::Scenario, event::Event, session::Standing},
    view::{
        json, lines,
        stack::{KernelSymbols, Places},
    },
};

/// What was seen of a scenario, until it is printed in the order of time.
pub struct Show {
    json: bool,
    scenario: &'static Scenario,
    seen: Vec<Shown>,
    verdicts: Vec<Verdict>,
}

impl Show {
    pub fn new(json: bool, scenario: &'static Scenario) -> Self {
        Self { json, scenario, seen: Vec::new(), verdicts: Vec::new() }
    }

    /// Keeps an event. Page records of a storm are only counted: hundreds of thousands.
    pub fn event(&mut self, event: Event, verdict: Option<Verdict>) {
        if let Some(verdict) = &verdict {
            self.verdicts.push(verdict.clone());
        }
        if self.scenario.every_call || event.is_vital() {
            self.seen.push((event, verdict));
        }
    }

    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Prints everything.
    pub fn print(
        mut self,
        said: Vec<(u64, String)>,
        comparison: &Comparison,
        standing: &Standing,
        latencies: &Latencies,
        ledger_agrees: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        // A verdict follows what it is about.
        self.seen.sort_by_key(|(event, verdict)| (event.header().time_ns, verdict.is_some()));
        if self.json {
            self.print_json(&said, comparison, standing, latencies, ledger_agrees, out)
        } else {
            self.print_text(&said, comparison, standing, latencies, ledger_agrees, out)
        }
    }

    fn print_json(
        &self,
        said: &[(u64, String)],
        comparison: &Comparison,
        standing: &Standing,
        latencies: &Latencies,
        ledger_agrees: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut said = said.iter().peekable();
        for (event, verdict) in &self.seen {
            while let Some((time_ns, text)) = said.next_if(|(time_ns, _)| *time_ns <= event.header().time_ns)
            {
                writeln!(out, "{}", json!({"type": "step", "time_ns": time_ns, "text": text}))?;
            }
            writeln!(out, "{}", json::event(event, verdict.as_ref()))?;
        }
        for (time_ns, text) in said {
            writeln!(out, "{}", json!({"type": "step", "time_ns": time_ns, "text": text}))?;
        }
        let mut result = json!({
            "type": "result",
            "scenario": self.scenario.name,
            "equal": comparison.is_equal(),
            "rows": comparison.rows,
            "missing": comparison.missing,
            "unexpected": comparison.unexpected,
            "ledger_equals_module": ledger_agrees,
            "latencies": latencies,
        });
        if let Some(result) = result.as_object_mut() {
            result.extend(json::standing(standing));
        }
        writeln!(out, "{result}")
    }

    fn print_text(
        &self,
        said: &[(u64, String)],
        comparison: &Comparison,
        standing: &Standing,
        latencies: &Latencies,
        ledger_agrees: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        writeln!(out, "== {}: {}", self.scenario.name, self.scenario.summary)?;
        self.timeline(said, out)?;
        table(comparison, out)?;
        let same = if ledger_agrees { "agree" } else { "DIFFER" };
        writeln!(out, "   ledger and module {same} on who owns which frame at the end")?;
        match standing.counters.outside {
            0 => {}
            outside => writeln!(
                out,
                "   {outside} times a frame found no room in the ledger: what becomes of it is not seen"
            )?,
        }
        for (what, balance) in [("vital", standing.vital), ("page", standing.pages)] {
            writeln!(
                out,
                "   {what} records: {} produced = {} received + {} lost{}",
                balance.produced,
                balance.received,
                balance.lost,
                if balance.is_exact() { "" } else { "  NOT EXACT" }
            )?;
        }
        for line in lines::latencies(latencies) {
            writeln!(out, "   {line}")?;
        }
        writeln!(out)
    }

    fn timeline(&self, said: &[(u64, String)], out: &mut dyn Write) -> io::Result<()> {
        let symbols =
            if self.verdicts.is_empty() { KernelSymbols::default() } else { KernelSymbols::running() };
        let times = self.seen.iter().map(|(event, _)| event.header().time_ns);
        let start = said.iter().map(|(time_ns, _)| *time_ns).chain(times).min().unwrap_or(0);
        let at = |time_ns: u64| format!("{:>10.3} ms", (time_ns - start) as f64 / 1e6);
        let mut said = said.iter().peekable();
        // A storm has too many events for a timeline: the table tells.
        // That a frame with an open line was released or handed out is what the verdict says.
        let few = self.scenario.every_call;
        let told = |(event, _): &&Shown| few && !matches!(event, Event::Frame(_));
        let mut events = self.seen.iter().filter(told).peekable();
        while let Some((event, verdict)) = events.next() {
            let time_ns = event.header().time_ns;
            while let Some((time_ns, text)) = said.next_if(|(said_ns, _)| *said_ns <= time_ns) {
                writeln!(out, "{} # {text}", at(*time_ns))?;
            }
            let Some(verdict) = verdict else {
                let more = same_again(event, &mut events, said.peek().map(|(time_ns, _)| *time_ns));
                let more = if more == 0 { String::new() } else { format!("  (and {more} more)") };
                writeln!(out, "{}   {}{more}", at(time_ns), lines::event(event, None))?;
                continue;
            };
            writeln!(out, "{} ! {}", at(time_ns), lines::headline(verdict))?;
            for line in lines::details(verdict, &Places::now(verdict, &symbols)) {
                writeln!(out, "{:13}     {line}", "")?;
            }
        }
        for (time_ns, text) in said {
            writeln!(out, "{} # {text}", at(*time_ns))?;
        }
        Ok(())
    }
}

/// Swallows the calls of the same leaf that follow and succeed as well, up to the next thing that is said.
fn same_again<'a>(
    event: &Event,
    events: &mut std::iter::Peekable<impl Iterator<Item = &'a Shown>>,
    until_ns: Option<u64>,
) -> u32 {
    let Event::Call(first) = event else { return 0 };
    // The steps of a zap belong together: each is worth its line.
    let zap = [Leaf::MemRangeBlock, Leaf::MemTrack, Leaf::MemPageRemove, Leaf::PhymemPageWbinvd];
    if first.status != 0 || zap.iter().any(|leaf| *leaf as u8 == first.call.leaf) {
        return 0;
    }
    let same = |(next, _): &&Shown| match next {
        Event::Call(next) => {
            next.status == 0
                && next.call.leaf == first.call.leaf
                && until_ns.is_none_or(|until_ns| next.call.header.time_ns < until_ns)
        }
        _ => false,
    };
    let mut more = 0;
    while events.next_if(|shown| same(shown)).is_some() {
        more += 1;
    }
    more
}

fn table(comparison: &Comparison, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "   {:<24} {:>8} {:>8}", "violation", "expected", "found")?;
    if comparison.rows.is_empty() {
        writeln!(out, "   {:<24} {:>8} {:>8}", "(none)", 0, 0)?;
    }
    for row in &comparison.rows {
        let note = match row.consequences {
            0 => String::new(),
            n => format!("  ({n} by others on this host, who were given a frame that was freed too early)"),
        };
        writeln!(out, "   {:<24} {:>8} {:>8}{note}", row.violation, row.expected, row.found)?;
    }
    let list = |out: &mut dyn Write, what: &str, keys: &[Key]| -> io::Result<()> {
        for Key { violation, tdr_pfn, pfn, gfn } in keys.iter().take(20) {
            let hex = |frame: Option<u64>| frame.map_or("-".to_owned(), |frame| format!("{frame:#x}"));
            let (pfn, gfn) = (hex(*pfn), hex(*gfn));
            writeln!(out, "   {what}: {} pfn {pfn} gfn {gfn} TDR {tdr_pfn:#x}", violation.name())?;
        }
        Ok(())
    };
    list(out, "not found", &comparison.missing)?;
    list(out, "not caused", &comparison.unexpected)?;
    match comparison.lost() {
        0 => {}
        lost => writeln!(
            out,
            "   {lost} violations were lost on the way, as the ring buffer was full; the kernel side counted them"
        )?,
    }
    let verdict = if comparison.is_equal() { "expected = found" } else { "expected and found DIFFER" };
    writeln!(out, "   {verdict}")
}
