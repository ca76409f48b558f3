//! What happened in a machine, in one list by time: what the VMM was told, the SEAMCALLs that failed or were made to,
//! what the kernel logged, what the module's own books say of frames, and what septwatch saw.
//!
//! All times are of the machine's CLOCK_MONOTONIC. Nothing is judged here.

mod read;
mod septwatch;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// So many of the same kind are told; more are counted.
const OF_A_KIND: u64 = 3;

/// One thing that happened.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    ns: u64,
    /// Whose word it is.
    who: &'static str,
    /// What it is one of many of.
    kind: String,
    what: String,
    /// More about it, a line each.
    details: Vec<String>,
}

impl Item {
    fn new(ns: u64, who: &'static str, kind: impl Into<String>, what: impl Into<String>) -> Self {
        Self { ns, who, kind: kind.into(), what: what.into(), details: Vec::new() }
    }
}

/// The timeline of what a machine left in this folder; a file that is not there adds nothing to it.
pub fn of(folder: &Path) -> String {
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let dmesg = text("dmesg");
    let mut items = read::commands(&text("vmm"), &dmesg);
    items.extend(read::syscalls(&text("syscalls")));
    items.extend(read::kernel_log(&dmesg));
    items.extend(read::calls(&text("calls")));
    items.extend(read::frames(&text("frames")));
    items.extend(septwatch::events(&text("septwatch.json")));
    render(items)
}

fn render(mut items: Vec<Item>) -> String {
    // Stable: what has the same time stays in the order of its source.
    items.sort_by_key(|item| item.ns);
    // A command during which nothing happened needs only its answer.
    let answered: Vec<bool> = items.windows(2).map(|pair| answers(&pair[0], &pair[1])).collect();
    let mut answered = answered.into_iter();
    items.retain(|_| !answered.next().unwrap_or_default());
    let mut seen = BTreeMap::<(&str, &str), u64>::new();
    for item in &items {
        *seen.entry((item.who, &item.kind)).or_default() += 1;
    }
    let mut told = BTreeMap::<(&str, &str), u64>::new();
    let mut text = String::new();
    let mut before = None;
    for item in &items {
        let key = (item.who, item.kind.as_str());
        let count = told.entry(key).or_default();
        *count += 1;
        if *count > OF_A_KIND {
            continue;
        }
        let since = before.map_or_else(String::new, |before| format!("+{}", span(item.ns - before)));
        let _ = write!(text, "  {:>13} {since:>10}  {:<9} {}", seconds(item.ns), item.who, item.what);
        let more = seen.get(&key).copied().unwrap_or_default().saturating_sub(OF_A_KIND);
        if *count == OF_A_KIND && more > 0 {
            let _ = write!(text, "  (and {more} more of its kind)");
        }
        text.push('\n');
        for detail in &item.details {
            let _ = writeln!(text, "{:38}{detail}", "");
        }
        before = Some(item.ns);
    }
    text
}

fn answers(command: &Item, next: &Item) -> bool {
    let answer = next.what.strip_prefix(&command.what).is_some_and(|rest| rest.starts_with(" -> "));
    answer && command.who == next.who
}

fn seconds(ns: u64) -> String {
    format!("{}.{:06}", ns / 1_000_000_000, ns % 1_000_000_000 / 1000)
}

/// A span of time in the unit that reads best.
pub fn span(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_by_time_and_each_with_the_time_since_the_one_before() {
        let mut second = Item::new(2_500_000, "kernel", "b", "later");
        second.details.push("why".to_owned());
        let text = render(vec![second, Item::new(1_000_000, "vmm", "a", "first")]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines,
            [
                vec!["0.001000", "vmm", "first"],
                vec!["0.002500", "+1.50", "ms", "kernel", "later"],
                vec!["why"]
            ]
        );
    }

    #[test]
    fn a_command_without_consequences_is_one_line() {
        let vmm = |ns, what: &str| Item::new(ns, "vmm", what, what);
        let quick = vec![vmm(1, "td a"), vmm(2, "td a -> ok")];
        assert_eq!(render(quick).lines().count(), 1);
        let telling = vec![vmm(1, "td a"), Item::new(2, "kernel", "w", "WARNING"), vmm(3, "td a -> ok")];
        assert_eq!(render(telling).lines().count(), 3);
    }

    #[test]
    fn what_comes_in_masses_is_counted() {
        let items = (0..10).map(|at| Item::new(at, "module", "same", format!("item {at}"))).collect();
        let text = render(items);
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("item 2  (and 7 more of its kind)\n"), "{text}");
    }
}
