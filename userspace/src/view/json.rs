//! Events as JSON, one object a line.

use septwatch_common::{Leaf, Level, Life, Status, Suspect, wire::TdLife, zap::PFN_UNKNOWN};
use serde_json::{Value, json};

use crate::{
    model::{text, verdict::Verdict},
    source::event::Event,
};

fn life(event: &TdLife) -> Value {
    json!({
        "type": "td",
        "time_ns": event.header.time_ns,
        "td": event.id,
        "tdr_pfn": event.tdr,
        "hkid": event.hkid,
        "life": Life::from_number(event.life).map(Life::name),
        "lent_frames": event.lent,
        "reasons": Suspect(event.suspect).reasons().collect::<Vec<_>>(),
        "pid": event.header.tgid,
        "tid": event.tid,
        "comm": text(&event.comm),
        "cgroup": event.cgroup,
    })
}

/// One event. `verdict` is that of a violation.
pub fn event(event: &Event, verdict: Option<&Verdict>) -> Value {
    match (event, verdict) {
        (_, Some(verdict)) => json!(verdict),
        (Event::Life(event), _) => life(event),
        (Event::Call(event), _) => {
            let call = &event.call;
            let leaf = Leaf::from_number(u64::from(call.leaf));
            let known = |frame| (frame != PFN_UNKNOWN).then_some(frame);
            json!({
                "type": "seamcall",
                "time_ns": call.header.time_ns,
                "cpu": call.header.cpu,
                "leaf": leaf.map(Leaf::name),
                "tdr_pfn": known(call.tdr),
                "pfn": known(call.pfn),
                "gfn": call.gfn,
                "level": Level::from_tdx(u64::from(call.level)).map(Level::name),
                "status": format!("{:#x}", event.status),
                "status_name": Status(event.status).name(),
                "ext_err1": format!("{:#x}", event.ext_err1),
                "ext_err2": format!("{:#x}", event.ext_err2),
                "pid": call.header.tgid,
                "tid": call.tid,
            })
        }
        (Event::Frame(event), _) => json!({
            "type": "frame",
            "time_ns": event.header.time_ns,
            "cpu": event.header.cpu,
            "pfn": event.pfn,
            "hook": event.hook,
            "pid": event.header.tgid,
            "tid": event.tid,
        }),
        (Event::Violation(event), None) => json!({
            "type": "unknown-violation",
            "number": event.violation,
            "time_ns": event.header.time_ns,
        }),
    }
}
