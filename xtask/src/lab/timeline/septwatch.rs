//! septwatch's JSON lines as items of a timeline. What this does not know by name is shown by its name: septwatch may
//! say more than this was written for.

use serde_json::{Map, Value};

use super::{Item, span};

/// Return addresses of a stack that are shown.
const FRAMES: usize = 8;

/// Keys of a violation that are told in words below, or that the line and its time tell already.
const TOLD: [&str; 32] = [
    "type",
    "violation",
    "confidence",
    "reasons",
    "time_ns",
    "cpu",
    "td",
    "tdr_pfn",
    "pfn",
    "gfn",
    "level",
    "kind",
    "state",
    "cause",
    "failed_leaf",
    "failed_status",
    "failed_status_name",
    "sept_entry",
    "sept_state",
    "failed_ns",
    "since_failed_zap_ns",
    "window_ns",
    "invalidation_ns",
    "hook",
    "pid",
    "tid",
    "comm",
    "cgroup",
    "kernel_stack",
    "kernel_functions",
    "user_stack",
    "user_functions",
];

/// TDs' and VMs' lives, and violations.
pub(super) fn events(text: &str) -> Vec<Item> {
    let objects = text.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok());
    objects
        .filter_map(|object| match object.get("type")?.as_str()? {
            "td" => life(&object),
            "vm" => vm(&object),
            "violation" => violation(&object),
            _ => None,
        })
        .collect()
}

fn life(object: &Map<String, Value>) -> Option<Item> {
    let of = |key| shown(object.get(key));
    let what = format!("TD {} {}: by {} ({})", of("td"), of("life"), of("comm"), of("pid"));
    Some(Item::new(object.get("time_ns")?.as_u64()?, "septwatch", what.clone(), what))
}

fn vm(object: &Map<String, Value>) -> Option<Item> {
    let of = |key| shown(object.get(key));
    let mut what = format!("VM of TD {} {}", of("td"), of("stage"));
    if let Some(ns) = object.get("since_bugged_ns").and_then(Value::as_u64) {
        what += &format!(", {} after it was bugged", span(ns));
    }
    Some(Item::new(object.get("time_ns")?.as_u64()?, "septwatch", what.clone(), what))
}

fn violation(object: &Map<String, Value>) -> Option<Item> {
    let of = |key| shown(object.get(key));
    let has = |key| object.get(key).is_some_and(|value| !value.is_null());
    let name = object.get("violation")?.as_str()?;
    let mut what = format!("{name} [{}]", of("confidence"));
    for (key, word) in [("pfn", "pfn"), ("gfn", "gfn"), ("td", "TD")] {
        if let Some(number) = object.get(key).and_then(Value::as_u64) {
            what += &if key == "td" { format!(" {word} {number}") } else { format!(" {word} {number:#x}") };
        }
    }
    let kind = format!("{name} {} {}", of("td"), of("failed_leaf"));
    let mut item = Item::new(object.get("time_ns")?.as_u64()?, "septwatch", kind, what);
    if has("failed_leaf") {
        let mut line =
            format!("{} answered {} ({})", of("failed_leaf"), of("failed_status_name"), of("failed_status"));
        if has("sept_entry") {
            line += &format!("; S-EPT entry {}, {}", of("sept_entry"), of("sept_state"));
        }
        item.details.push(line);
    }
    let times = [
        ("since_failed_zap_ns", "after the failing step"),
        ("invalidation_ns", "after the invalidation began"),
        ("window_ns", "after the release"),
    ];
    for (key, words) in times {
        if let Some(ns) = object.get(key).and_then(Value::as_u64) {
            item.details.push(format!("{} {words}", span(ns)));
        }
    }
    let mut at = format!("at {}, running {} (pid {})", of("hook"), of("comm"), of("pid"));
    if has("kind") {
        at = format!("a {} in state {}, seen {at}", of("kind"), of("state"));
    }
    if has("cause") {
        at += &format!("; cause: {}", of("cause"));
    }
    item.details.push(at);
    if has("reasons") && of("reasons") != "[]" {
        item.details.push(format!("reasons: {}", of("reasons")));
    }
    for (side, names, addresses) in
        [("kernel", "kernel_functions", "kernel_stack"), ("user", "user_functions", "user_stack")]
    {
        let stack = object.get(names).or_else(|| object.get(addresses)).and_then(Value::as_array);
        let stack = stack.into_iter().flatten().filter_map(Value::as_str);
        // Without the programs that saw it and the trampolines that lead to programs.
        let stack: Vec<&str> = stack.filter(|name| !name.starts_with("bpf_")).take(FRAMES).collect();
        if !stack.is_empty() {
            item.details.push(format!("{side} stack: {}", stack.join(" < ")));
        }
    }
    for (key, value) in object {
        let one_frame = key == "frames" && *value == 1;
        let empty = value.is_null() || one_frame || *value == Value::Array(Vec::new());
        if !TOLD.contains(&key.as_str()) && !empty {
            item.details.push(format!("{}: {}", key.replace('_', " "), shown(Some(value))));
        }
    }
    Some(item)
}

/// Text without its quotes, an object as `key=value`, anything else as JSON has it.
fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "?".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(object)) => {
            let known = object.iter().filter(|(_, value)| !value.is_null());
            let parts: Vec<String> =
                known.map(|(key, value)| format!("{key}={}", shown(Some(value)))).collect();
            parts.join(" ")
        }
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_told_with_what_it_says_beyond_what_is_known() {
        let line = r#"{"type":"violation","violation":"freed-while-blocked","confidence":"certain","reasons":[],
            "time_ns":7,"td":1,"pfn":16,"gfn":32,"kind":"guest leaf","state":"blocked","frames":1,"cause":"zap-failed",
            "failed_leaf":"TDH.MEM.PAGE.REMOVE","failed_status":"0x8000020000000092",
            "failed_status_name":"TDX_OPERAND_BUSY","since_failed_zap_ns":1500,"window_ns":null,"hook":"mm_page_free",
            "pid":5,"comm":"vmm","kernel_functions":["bpf_prog+0x1","free+0x2"],"user_stack":["0x7f"],
            "gmem":{"inode":3,"operation":"fallocate","index":null},"new":null}"#
            .replace('\n', "");
        let items = events(&format!("{line}\nno json\n{{\"type\":\"end\"}}\n"));
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].what, "freed-while-blocked [certain] pfn 0x10 gfn 0x20 TD 1");
        assert_eq!(
            items[0].details,
            [
                "TDH.MEM.PAGE.REMOVE answered TDX_OPERAND_BUSY (0x8000020000000092)",
                "1.5 us after the failing step",
                "a guest leaf in state blocked, seen at mm_page_free, running vmm (pid 5); cause: zap-failed",
                "kernel stack: free+0x2",
                "user stack: 0x7f",
                "gmem: inode=3 operation=fallocate",
            ]
        );
    }

    #[test]
    fn a_tds_life_is_told() {
        let line = r#"{"type":"td","time_ns":3,"td":2,"life":"created","comm":"qemu","pid":4}"#;
        let items = events(line);
        assert_eq!(items[0].what, "TD 2 created: by qemu (4)");
        assert_eq!(items[0].ns, 3);
    }
}
