//! Events as JSON, one object a line.

use septwatch_common::{
    Leaf, Level, Life, Status, Suspect,
    kvm::VmStage,
    wire::{TdLife, VmLife},
    zap::PFN_UNKNOWN,
};
use serde_json::{Map, Value, json};

use crate::{
    model::{
        text,
        verdict::{Verdict, hook},
    },
    recording::header::{Header, Note},
    source::{event::Event, session::Standing},
    view::stack::Places,
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

/// A violation as [`event`] gives it, and the places in its stacks by name.
pub fn violation(verdict: &Verdict, places: &Places) -> Value {
    let mut object = json!(verdict);
    object["kernel_functions"] = places.kernel.clone().into();
    object["user_functions"] = places.user.clone().into();
    object
}

fn vm(event: &VmLife) -> Value {
    let bugged = (event.bugged_ns != 0).then(|| event.header.time_ns.saturating_sub(event.bugged_ns));
    json!({
        "type": "vm",
        "time_ns": event.header.time_ns,
        "td": event.id,
        "tdr_pfn": event.tdr,
        "stage": VmStage::from_number(event.stage).map(VmStage::name),
        "since_bugged_ns": bugged,
        "lent_frames": event.lent,
        "pid": event.header.tgid,
        "tid": event.tid,
        "comm": text(&event.comm),
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
            // All that TDH.VP.ADDCX names of the TD is the vCPU.
            let of_vcpu = leaf == Some(Leaf::VpAddcx);
            let about_gpa = leaf.is_some_and(Leaf::names_gpa);
            json!({
                "type": "seamcall",
                "time_ns": call.header.time_ns,
                "cpu": call.header.cpu,
                "leaf": leaf.map(Leaf::name),
                "tdr_pfn": known(call.tdr).filter(|_| !of_vcpu),
                "tdvpr_pfn": known(call.tdr).filter(|_| of_vcpu),
                "pfn": known(call.pfn),
                "gfn": about_gpa.then_some(call.gfn),
                "level": Level::from_tdx(u64::from(call.level)).filter(|_| about_gpa).map(Level::name),
                "status": format!("{:#x}", event.status),
                "status_name": Status(event.status).name(),
                "ext_err1": format!("{:#x}", event.ext_err1),
                "ext_err2": format!("{:#x}", event.ext_err2),
                "took_ns": (call.took_ns != 0).then_some(call.took_ns),
                "pid": call.header.tgid,
                "tid": call.tid,
            })
        }
        (Event::Frame(event), _) => json!({
            "type": "frame",
            "time_ns": event.header.time_ns,
            "cpu": event.header.cpu,
            "pfn": event.pfn,
            "hook": hook(event.hook),
            "pid": event.header.tgid,
            "tid": event.tid,
        }),
        (Event::Vm(event), _) => vm(event),
        (Event::Violation(event), None) => json!({
            "type": "unknown-violation",
            "number": event.violation,
            "time_ns": event.header.time_ns,
        }),
    }
}

/// What a recording says of itself, without how its records are laid out.
pub fn recording(header: &Header) -> Value {
    let mut object = of_type("recording", json!(header));
    if let Some(object) = object.as_object_mut() {
        object.remove("schema");
    }
    object
}

/// What is recorded beside events.
pub fn note(note: &Note) -> Value {
    let mut fields = json!(note);
    let name = fields.as_object_mut().and_then(|fields| fields.remove("note"));
    of_type(name.as_ref().and_then(Value::as_str).unwrap_or("note"), fields)
}

/// The same object with a `type` in front.
fn of_type(name: &str, mut fields: Value) -> Value {
    let mut object = json!({"type": name});
    if let (Some(object), Some(fields)) = (object.as_object_mut(), fields.as_object_mut()) {
        object.append(fields);
    }
    object
}

/// How an observation stands, as fields of an object.
pub fn standing(standing: &Standing) -> Map<String, Value> {
    let fields = [
        ("vital_records", json!(standing.vital)),
        ("page_records", json!(standing.pages)),
        ("frames_outside_the_ledger", json!(standing.counters.outside)),
        ("calls_not_read", json!(standing.counters.unread)),
        ("releases_missed", json!(standing.missed_releases)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
