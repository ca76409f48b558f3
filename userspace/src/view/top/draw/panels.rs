//! Parts of the overview: what they say, in lines.

use ratatui::text::{Line, Span};
use septwatch_common::PageKind;

use super::{
    Look,
    pen::{Pen, cell, grouped},
    wrap::flow,
};
use crate::{
    model::accounting::Balance,
    view::{
        lines::{headline, span},
        top::{
            columns::{age, bytes, name, rate},
            scene::{Found, KINDS, Overhead, Phase, Rates, Scene, Source, TdRow},
        },
    },
};

/// How the host is, in a line or two.
pub fn verdict(scene: &Scene, look: &Look) -> Vec<Line<'static>> {
    let (palette, symbols) = (look.palette, look.symbols);
    let total = scene.total();
    let mut lines = Vec::new();
    if let Phase::Starting(doing) = &scene.about.phase {
        lines.push(Line::styled(format!("{} starting: {doing}", symbols.warn), palette.warn));
    }
    if total > 0 {
        let mut head = format!("{} {} violation{}", symbols.bad, grouped(total), plural(total));
        if scene.host.suspect > 0 {
            head += &format!(" ({} suspect)", grouped(scene.host.suspect));
        }
        let mut kinds: Vec<_> = scene.by_kind.iter().filter(|(_, count)| **count > 0).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let kinds: Vec<_> =
            kinds.iter().map(|(kind, count)| format!("{} {}", grouped(**count), kind.name())).collect();
        lines.push(Line::from(vec![
            Span::styled(head, palette.bad),
            Span::styled(format!(": {}", kinds.join(", ")), palette.text),
        ]));
    }
    if !scene.host.degraded.is_empty() {
        lines.push(Line::from(vec![
            Span::styled(format!("{} degraded", symbols.warn), palette.warn),
            Span::styled(format!(": {}", scene.host.degraded.join("; ")), palette.text),
        ]));
    }
    if lines.is_empty() {
        lines.push(Line::from(vec![
            Span::styled(format!("{} all clear", symbols.good), palette.good.patch(palette.head)),
            Span::styled(format!(": {}", living(scene)), palette.text),
        ]));
    }
    lines
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn living(scene: &Scene) -> String {
    let host = &scene.host;
    if host.tds == 0 {
        return "no TD lives, no violation".to_owned();
    }
    format!(
        "{} TD{}, {} lent, no violation",
        grouped(host.tds),
        plural(host.tds),
        bytes(lent(scene).saturating_mul(4096))
    )
}

/// All frames that are lent.
pub fn lent(scene: &Scene) -> u64 {
    scene.host.lent.iter().fold(0, |sum, frames| sum.saturating_add(*frames))
}

/// Frames that are lent, by kind: bytes, frames, and a bar.
pub fn memory(pen: &Pen, scene: &Scene, width: u16) -> Vec<Line<'static>> {
    let palette = pen.look.palette;
    let whole = lent(scene);
    let room = width.saturating_sub(33).min(40);
    let row = |(kind, frames): (PageKind, u64)| {
        let size = bytes(frames.saturating_mul(4096));
        let style = if frames == 0 { palette.quiet } else { palette.text };
        Line::from(vec![
            Span::styled(format!("{:<10}", kind.name()), palette.quiet),
            Span::styled(format!(" {size:>9}"), style),
            Span::styled(format!(" {:>11} ", grouped(frames)), palette.quiet),
            Span::styled(pen.bar(frames as f64, whole as f64, room), palette.good),
        ])
    };
    KINDS.into_iter().zip(scene.host.lent).map(row).collect()
}

/// Width of the labels.
const LABEL: u16 = 10;

/// A label, and what there is to say, in as many lines as it takes.
fn row(label: &str, parts: Vec<Span<'static>>, gap: u16, look: &Look, width: u16) -> Vec<Line<'static>> {
    let mut items: Vec<_> = parts.into_iter().map(|part| vec![part]).collect();
    if let Some(first) = items.first_mut() {
        first.insert(0, Span::styled(format!("{label:<w$}", w = LABEL.into()), look.palette.quiet));
    }
    flow(items, width, gap, LABEL)
}

/// What happens at this moment.
pub fn now(scene: &Scene, look: &Look, width: u16) -> Vec<Line<'static>> {
    let palette = look.palette;
    let quiet = |text: String| Span::styled(text, palette.quiet);
    let plain = |text: String| Span::styled(text, palette.text);
    let host = &scene.host;
    let Rates { calls, maps, zaps, busy, errors, .. } = host.rates;
    let tds = vec![
        plain(format!("{} living", grouped(host.tds))),
        quiet(format!("{} seen", grouped(host.tds_seen))),
    ];
    let frames = vec![plain(format!("{}/s mapped", rate(maps))), plain(format!("{}/s zapped", rate(zaps)))];
    let share = if calls > 0.0 {
        let share = (busy / calls * 100.0).clamp(0.0, 100.0);
        plain(format!("{share:.1} % of {}/s calls", rate(calls)))
    } else {
        quiet("no calls".to_owned())
    };
    let mut answers = vec![plain(format!("{}/s", rate(busy))), share];
    if errors > 0.0 {
        answers.push(Span::styled(format!("{}/s errors", rate(errors)), palette.warn));
    }
    let latency = match &host.latency {
        Some(latency) => [("p50", latency.p50_ns), ("p99", latency.p99_ns), ("max", latency.max_ns)]
            .map(|(name, ns)| plain(format!("{name} {}", span(ns))))
            .to_vec(),
        None => vec![quiet("-".to_owned())],
    };
    [("TDs", tds), ("frames", frames), ("BUSY", answers), ("SEAMCALL", latency)]
        .into_iter()
        .flat_map(|(label, parts)| row(label, parts, 2, look, width))
        .collect()
}

/// Whether septwatch sees everything, and what it costs.
pub fn own(scene: &Scene, look: &Look, width: u16) -> Vec<Line<'static>> {
    let host = &scene.host;
    let mut lines = Vec::new();
    for (name, balance) in [("vital", &host.vital), ("pages", &host.pages)] {
        if let Some(balance) = balance {
            lines.extend(row(name, records(balance, look), 1, look, width));
        }
    }
    let unseen: Vec<_> = [
        (host.outside, "frames outside the ledger"),
        (host.unread, "SEAMCALLs not read"),
        (host.missed_releases, "releases maybe missed"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| {
        Span::styled(format!("{} {} {what}", look.symbols.warn, grouped(count)), look.palette.warn)
    })
    .collect();
    if !unseen.is_empty() {
        lines.extend(row("unseen", unseen, 2, look, width));
    }
    if let Some(overhead) = &host.overhead {
        lines.extend(row("septwatch", cost(overhead, &scene.about.source, look), 2, look, width));
    }
    lines
}

/// Records: made = received here + received by others before + lost, and what is under way.
fn records(balance: &Balance, look: &Look) -> Vec<Span<'static>> {
    let palette = look.palette;
    let Balance { produced, received, earlier, lost } = *balance;
    let mut parts =
        vec![Span::styled(format!("{} = {} here", grouped(produced), grouped(received)), palette.text)];
    if earlier > 0 {
        parts.push(Span::styled(format!("+ {} earlier", grouped(earlier)), palette.text));
    }
    let style = if lost > 0 { palette.bad } else { palette.text };
    let mark = if lost > 0 { format!("{} ", look.symbols.bad) } else { String::new() };
    parts.push(Span::styled(format!("+ {mark}{} lost", grouped(lost)), style));
    let accounted = received.saturating_add(earlier).saturating_add(lost);
    if !balance.is_exact() {
        let text = if produced >= accounted {
            format!("+ {} under way", grouped(produced - accounted))
        } else {
            format!("- {} not yet counted", grouped(accounted - produced))
        };
        parts.push(Span::styled(text, palette.quiet));
    }
    parts
}

/// What septwatch costs.
fn cost(overhead: &Overhead, source: &Source, look: &Look) -> Vec<Span<'static>> {
    let palette = look.palette;
    let plain = |text: String| Span::styled(text, palette.text);
    let quiet = |text: String| Span::styled(text, palette.quiet);
    let percent = |thousandths: f64| format!("{:.1} %", (thousandths / 10.0).clamp(0.0, 1e5));
    let demo = if matches!(source, Source::Demo(_)) { " with the demo" } else { "" };
    let mut parts = vec![plain(format!("{} CPU{demo}", percent(overhead.agent)))];
    parts.push(match overhead.programs {
        Some(programs) => plain(format!("programs {}", percent(programs))),
        None => quiet("programs -".to_owned()),
    });
    parts.push(plain(bytes(overhead.rss)));
    match &overhead.counters {
        Some(Ok((cycles, instructions))) => {
            parts.push(plain(format!("{} cycles/s", rate(*cycles))));
            parts.push(plain(format!("{} instr/s", rate(*instructions))));
        }
        Some(Err(why)) => parts.push(quiet(format!("no counters: {why}"))),
        None => parts.push(quiet("no counters".to_owned())),
    }
    if let Some(runs) = overhead.runs {
        parts.push(plain(format!("{} runs/s", rate(runs))));
    }
    parts
}

/// The last violations, the newest first, a line each.
pub fn last_violations(scene: &Scene, look: &Look, rows: u16) -> Vec<Line<'static>> {
    let palette = look.palette;
    if scene.violations.is_empty() {
        return vec![Line::styled("none so far", palette.quiet)];
    }
    let line = |found: &Found| {
        let verdict = &found.verdict;
        let ago = age(scene.time.now_ns.saturating_sub(verdict.time_ns));
        let certain = verdict.suspect.is_certain();
        let (mark, style) =
            if certain { (look.symbols.bad, palette.bad) } else { (look.symbols.warn, palette.warn) };
        let head = headline(verdict);
        let (name, rest) = head.split_once(' ').unwrap_or((&head, ""));
        let mut spans = vec![
            Span::styled(format!("{ago:>8} "), palette.quiet),
            Span::styled(format!("{mark} {name}"), style),
            Span::styled(format!(" {rest}"), palette.text),
        ];
        if let Some(name) = &found.td_name {
            spans.push(Span::styled(format!(" ({name})"), palette.quiet));
        }
        Line::from(spans)
    };
    scene.violations.iter().rev().take(rows.into()).map(|found| line(found)).collect()
}

/// The TDs in which most happens, a line each.
pub fn busiest(scene: &Scene, look: &Look, rows: u16, width: u16) -> Vec<Line<'static>> {
    let palette = look.palette;
    if scene.tds.is_empty() {
        return vec![Line::styled("no TD was seen", palette.quiet)];
    }
    let weight = |td: &TdRow| td.rates.maps + td.rates.zaps + td.rates.busy;
    let mut tds: Vec<&TdRow> = scene.tds.iter().collect();
    let rows = usize::from(rows).min(tds.len());
    let by_weight =
        |one: &&TdRow, other: &&TdRow| weight(other).total_cmp(&weight(one)).then(one.id.cmp(&other.id));
    if rows > 0 && rows < tds.len() {
        tds.select_nth_unstable_by(rows - 1, by_weight);
    }
    tds.truncate(rows);
    tds.sort_by(by_weight);
    let room = width.saturating_sub(34).clamp(6, 40);
    let ellipsis = look.symbols.ellipsis;
    let line = |td: &TdRow| {
        let rates = if scene.about.no_calls.is_some() {
            format!(" {:>7} {:>7}", "-", "-")
        } else {
            format!(" {:>7} {:>7}", rate(td.rates.maps), rate(td.rates.zaps))
        };
        let style = if td.violations > 0 { palette.bad } else { palette.quiet };
        let mark = if td.violations > 0 { look.symbols.bad } else { " " };
        Line::from(vec![
            Span::styled(format!("{mark} "), style),
            Span::raw(cell(name(td), room, false, ellipsis).into_owned()),
            Span::raw(format!(" {:>9}", bytes(td.private().saturating_mul(4096)))),
            Span::raw(rates),
            Span::styled(format!(" {:>5}", td.violations), style),
        ])
    };
    let heads = format!(
        "  {} {:>9} {:>7} {:>7} {:>5}",
        cell("NAME", room, false, ""),
        "PRIVATE",
        "MAP/s",
        "ZAP/s",
        "VIOL"
    );
    let heads = Line::styled(heads, palette.quiet);
    std::iter::once(heads).chain(tds.into_iter().map(line)).collect()
}
