//! The policy that the septwatch that runs here follows, as it says itself.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::{
    hooks::lock::RUN,
    policy::control::{AskError, Request, ask},
};

/// A policy that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Followed {
    /// Its name; none: it is not known, for the reason in `gaps`.
    pub policy: Option<String>,
    /// Whether what it says is done, or only told.
    pub armed: bool,
    /// What of it is not carried out here, and why.
    pub gaps: Vec<String>,
    /// TDs that are held, by their numbers.
    pub held: Vec<u64>,
}

impl Followed {
    /// That of the agent on this host; none: there is none.
    pub fn running() -> Option<Self> {
        match ask(Path::new(RUN), &Request::Status) {
            Ok(status) => Some(Self::of(&status)),
            Err(AskError::NoAgent) => None,
            Err(error) => {
                Some(Self { policy: None, armed: false, gaps: vec![error.to_string()], held: Vec::new() })
            }
        }
    }

    fn of(status: &Value) -> Self {
        let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
        let gap = |gap: &Value| {
            let text = |key| gap[key].as_str().unwrap_or("?");
            format!("rule {:?}, step {} ({}): {}", text("rule"), gap["step"], text("reaction"), text("lost"))
        };
        let failed = |hold: &&Value| hold["violation"].is_string();
        Self {
            policy: status["policy"].as_str().map(str::to_owned),
            armed: status["armed"] == true && status["policy_says_armed"] == true,
            gaps: list(&status["gaps"]).iter().map(gap).collect(),
            held: list(&status["holds"])
                .iter()
                .filter(failed)
                .filter_map(|hold| hold["td"].as_u64())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_read() {
        let status = json!({
            "policy": "contain", "armed": true, "policy_says_armed": true,
            "gaps": [{"rule": "r", "step": 1, "reaction": "hold", "lost": "why"}],
            "holds": [{"td": 7, "violation": "zap-failed"}, {"td": 8, "violation": null}],
        });
        let followed = Followed {
            policy: Some("contain".to_owned()),
            armed: true,
            gaps: vec!["rule \"r\", step 1 (hold): why".to_owned()],
            held: vec![7],
        };
        assert_eq!(Followed::of(&status), followed);
        assert!(!Followed::of(&json!({"policy": "x", "armed": true, "policy_says_armed": false})).armed);
    }
}
