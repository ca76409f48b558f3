//! Call by call: how many SEAMCALLs of each leaf the module got, and how many septwatch measured.

use std::collections::BTreeMap;

use septwatch_common::{Leaf, config::HOOKED};
use serde_json::Value;

use super::oracle::Finding;

/// Each call of a function that septwatch has a hook at must be measured, and its latency plausible. `calls` is the
/// module's record, `septwatch` the JSON lines.
pub fn measured(calls: &str, septwatch: &str) -> Finding {
    let expected = if calls.starts_with('#') { vec!["all of them".to_owned()] } else { of_module(calls) };
    let found = of_septwatch(septwatch);
    Finding { what: "latencies", equal: expected == found, expected, found }
}

/// `LEAF xN`, in the order of the leaves' numbers.
fn of_module(calls: &str) -> Vec<String> {
    let mut counts = BTreeMap::<Leaf, u64>::new();
    for leaf in calls.lines().filter_map(|line| Leaf::from_name(line.split(' ').nth(4)?)) {
        *counts.entry(leaf).or_default() += 1;
    }
    // A TDR is written back once, by a function of its own, which has no hook.
    let ended = counts.get(&Leaf::MngKeyFreeid).copied().unwrap_or(0);
    if let Some(count) = counts.get_mut(&Leaf::PhymemPageWbinvd) {
        *count = count.saturating_sub(ended);
    }
    counts.retain(|leaf, count| HOOKED.contains(leaf) && *count != 0);
    counts.iter().map(|(leaf, count)| format!("{} x{count}", leaf.name())).collect()
}

/// The same of what septwatch says at its end; what cannot be is marked.
fn of_septwatch(text: &str) -> Vec<String> {
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let end = lines.rfind(|line| line["type"] == "end").unwrap_or_default();
    let mut found: Vec<_> = end["latencies"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, latency)| {
            let figures = ["min_ns", "p50_ns", "p99_ns", "max_ns"].map(|key| latency[key].as_u64());
            let plausible = figures.is_sorted() && figures[0] > Some(0);
            let mark = if plausible { "" } else { " (implausible)" };
            (Leaf::from_name(name), format!("{name} x{}{mark}", latency["count"]))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: &str = "\
0 ns=1 cpu=0 pid=1 MNG_CREATE rcx=0x1000 rdx=0x20 r8=0x0 -> 0x0000000000000000 rcx=0x0 rdx=0x0
1 ns=2 cpu=0 pid=1 MNG_RD rcx=0x1000 rdx=0x20 r8=0x0 -> 0x0000000000000000 rcx=0x0 rdx=0x0
2 ns=3 cpu=0 pid=1 PHYMEM_PAGE_WBINVD rcx=0x2000 rdx=0x0 r8=0x0 -> 0x0000000000000000 rcx=0x0 rdx=0x0
3 ns=4 cpu=0 pid=1 MNG_KEY_FREEID rcx=0x1000 rdx=0x0 r8=0x0 -> 0x0000000000000000 rcx=0x0 rdx=0x0
4 ns=5 cpu=0 pid=1 PHYMEM_PAGE_WBINVD rcx=0x1000 rdx=0x0 r8=0x0 -> 0x0000000000000000 rcx=0x0 rdx=0x0
";

    fn end(wbinvds: u64, min_ns: u64) -> String {
        let one = |count, min_ns| {
            format!("{{\"count\":{count},\"min_ns\":{min_ns},\"p50_ns\":7,\"p99_ns\":9,\"max_ns\":9}}")
        };
        let (create, free, wbinvd) = (one(1, 5), one(1, 5), one(wbinvds, min_ns));
        format!(
            "{{\"type\":\"start\"}}\n{{\"type\":\"end\",\"latencies\":{{\"TDH.PHYMEM.PAGE.WBINVD\":{wbinvd},\"TDH.MNG.CREATE\":{create},\"TDH.MNG.KEY.FREEID\":{free}}}}}\n"
        )
    }

    #[test]
    fn as_many_are_measured_as_were_made() {
        assert!(measured(CALLS, &end(1, 5)).equal);
        assert!(!measured(CALLS, &end(2, 5)).equal, "one too many");
        assert!(!measured(CALLS, &end(1, 0)).equal, "nothing takes no time");
        assert!(!measured(CALLS, &end(1, 8)).equal, "the shortest is longer than the median");
        assert!(!measured(CALLS, "{\"type\":\"end\",\"latencies\":{}}\n").equal);
        assert!(!measured("# 7 earlier calls are gone\n", &end(1, 5)).equal);
    }
}
