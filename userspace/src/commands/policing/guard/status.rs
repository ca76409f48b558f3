//! What a policy at work says of itself.

use anyhow::Result;
use serde_json::{Value, json};

use super::{super::side::Side, Guard};
use crate::{
    policy::latency,
    recording::header::Clock,
    source::{kernel::KernelError, session::Session},
};

impl Guard {
    /// For people: what is followed, and what of it cannot be carried out here.
    pub fn told(&self) -> String {
        let policy = self.engine.policy();
        let armed = match (policy.armed, self.actor.is_armed()) {
            (true, true) => "armed",
            (true, false) => "not armed, a dry run: --arm or `septwatch policy arm` arm it",
            (false, _) => "a dry run: it does not say `armed = true`",
        };
        let mut text = format!("policy {}: {armed}", policy.name);
        for gap in &self.gaps {
            text += &format!("\n  without {gap}");
        }
        text
    }

    /// How things stand.
    ///
    /// # Errors
    /// In words, the kernel side cannot be read.
    pub fn status(&mut self, session: &mut Session) -> std::result::Result<Value, String> {
        let failed = |error: KernelError| error.to_string();
        let reactions = session.kernel().reactions();
        let (cordon, cordoned) =
            (reactions.cordoning().map_err(failed)?, reactions.cordoned().map_err(failed)?);
        let side = &mut Side::of(session, self.attached);
        let mut status = serde_json::to_value(self.actor.status(side)).map_err(|error| error.to_string())?;
        let left = self.engine.limits_left(Clock::now().monotonic_ns);
        if let Some(status) = status.as_object_mut() {
            let policy = self.engine.policy();
            status.insert("policy_says_armed".to_owned(), policy.armed.into());
            status.insert("gaps".to_owned(), json!(self.gaps));
            status.insert("kernel_rules".to_owned(), self.following.len().into());
            status.insert("limit_left_on_host".to_owned(), left.host.into());
            let cordon = json!({
                "errno": cordon.errno,
                "every_type": cordon.every_type != 0,
                "refused": cordoned.refused,
                "last_refused_pid": cordoned.tgid,
            });
            status.insert("cordon".to_owned(), cordon);
        }
        Ok(status)
    }

    /// What it came to: lines for people, an object for tools. How long reactions took, and what is still held or refused.
    ///
    /// # Errors
    /// The kernel side cannot be read.
    pub fn came_to(&mut self, session: &mut Session) -> Result<(Vec<String>, Value)> {
        let mut status = self.status(session).map_err(anyhow::Error::msg)?;
        let [latencies, holds, cordon] = ["latencies", "holds", "cordon"].map(|key| status[key].take());
        let mut lines = latency::rows(&self.actor.latencies());
        let failed = holds.as_array().into_iter().flatten().filter(|hold| hold["violation"].is_string());
        lines.extend(failed.map(crate::commands::policy::hold_line));
        if cordon["errno"] != 0 {
            lines.push(format!("new VMs are refused: {} were", cordon["refused"]));
        }
        let came_to = json!({"type": "reactions", "latencies": latencies, "holds": holds, "cordon": cordon});
        Ok((lines, came_to))
    }
}
