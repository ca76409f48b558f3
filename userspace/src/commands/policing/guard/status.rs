//! What a policy at work says of itself.

use serde_json::{Value, json};

use super::{super::side::Side, Guard};
use crate::{
    recording::header::Clock,
    source::{kernel::KernelError, session::Session},
};

impl Guard {
    /// One line for people, one object for tools: what is followed, and what of it cannot be carried out here.
    pub fn told(&self) -> (String, Value) {
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
        let is_armed = policy.armed && self.actor.is_armed();
        (text, json!({"type": "policy", "policy": policy.name, "armed": is_armed, "gaps": self.gaps}))
    }

    /// How things stand.
    ///
    /// # Errors
    /// In words, the kernel side cannot be read.
    pub fn status(&mut self, session: &mut Session) -> Result<Value, String> {
        let kernel = session.kernel();
        let failed = |error: KernelError| error.to_string();
        let (cordon, cordoned) =
            (kernel.reactions().cordoning().map_err(failed)?, kernel.reactions().cordoned().map_err(failed)?);
        let side = &mut Side { kernel, attached: self.attached };
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
}
