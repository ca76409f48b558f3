//! The policy at work, as its view shows it.

use serde_json::Value;

use crate::{
    commands::{
        policing::Guard,
        policy::{hold_line, logged as told},
    },
    policy::{audit, control::Request, latency},
    source::session::Session,
    view::top::scene::Policy,
};

/// Of the audit trail, how much is shown, in bytes.
const TRAIL: u64 = 64 << 10;

/// How the policy stands.
pub fn standing(guard: &mut Guard, session: &mut Session) -> Policy {
    let status = guard.request(&Request::Status, audit::Who::this(), session);
    let mut shown = of(guard);
    match status {
        Err(why) => shown.gaps.push(why),
        Ok(status) => {
            let lines = |key: &str, line: fn(&Value) -> String| {
                status[key].as_array().into_iter().flatten().map(line).collect::<Vec<_>>()
            };
            shown.armed = status["armed"] == true;
            shown.limit_left = status["limit_left_on_host"].as_u64();
            shown.kernel_rules = status["kernel_rules"].as_u64().unwrap_or(0);
            shown.holds = lines("holds", hold_line);
            if status["cordon"]["errno"].as_u64().unwrap_or(0) != 0 {
                shown.holds.push(format!("new VMs are refused: {} were", status["cordon"]["refused"]));
            }
            if let Some(folder) = status["audit"].as_str() {
                shown.folder = folder.to_owned();
                shown.audit = trail(folder);
            }
        }
    }
    shown
}

fn of(guard: &Guard) -> Policy {
    let policy = guard.policy();
    let rules = policy.rules.iter().map(|rule| {
        let step = |step: &crate::policy::file::Step| {
            let only = if step.if_failed { "else " } else { "" };
            format!("{only}{}", step.reaction.name())
        };
        (rule.name.clone(), rule.ladder.iter().map(step).collect::<Vec<_>>().join(", then "))
    });
    Policy {
        name: policy.name.clone(),
        may_be_armed: policy.armed,
        rules: rules.collect(),
        gaps: guard.gaps().iter().map(ToString::to_string).collect(),
        latencies: latency::rows(&guard.latencies()),
        ..Policy::default()
    }
}

/// The last lines of the audit log.
fn trail(folder: &str) -> Vec<String> {
    let days = audit::days(folder.as_ref()).unwrap_or_default();
    let Some(day) = days.last() else { return Vec::new() };
    let lines = audit::last(&day.path, TRAIL).unwrap_or_default();
    lines.into_iter().map(|line| line.map_or_else(|torn| torn, |line| told(&line))).collect()
}
