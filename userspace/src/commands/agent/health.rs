//! What the HTTP server answers: metrics, and whether the agent lives and is ready.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    collector::{
        http::{Page, Pages},
        metrics::Metrics,
        snapshot::{STALE, Shared},
    },
    hooks::table::HookSpec,
};

/// Answers.
pub struct Health {
    metrics: Metrics,
    shared: Arc<Shared>,
}

impl Health {
    /// Of what is shared.
    pub fn new(metrics: Metrics, shared: Arc<Shared>) -> Self {
        Self { metrics, shared }
    }

    /// Why the agent does not live: the thread that watches has put nothing down for a while.
    fn hangs(&self) -> Option<String> {
        let (age, _) = self.shared.newest()?;
        (age > STALE).then(|| format!("the watching thread has not been heard of for {} s", age.as_secs()))
    }

    /// Why it is not ready: violations would pass unseen.
    fn not_ready(&self) -> Option<String> {
        let Some((_, snapshot)) = self.shared.newest() else {
            return Some("nothing is attached yet".to_owned());
        };
        let missing =
            snapshot.hooks.iter().find(|hook| hook.missing.is_some() && HookSpec::is_required(&hook.name));
        missing.map(|hook| format!("no {}", hook.name)).or_else(|| self.hangs())
    }

    fn answer(&self, why_not: Option<String>) -> Page {
        let outputs = self.shared.outputs().into_iter().map(|(name, counts)| {
            let trouble = counts.counted().trouble;
            (name.to_owned(), trouble.map_or_else(|| "ok".into(), Value::from))
        });
        let object = json!({
            "status": why_not.as_deref().unwrap_or("ok"),
            "outputs": outputs.collect::<serde_json::Map<_, _>>(),
        });
        let status = if why_not.is_some() { 503 } else { 200 };
        Page { status, content_type: "application/json", body: format!("{object}\n").into_bytes() }
    }
}

impl Pages for Health {
    fn page(&self, path: &str, accept: &str) -> Option<Page> {
        Some(match path {
            "/metrics" => {
                let (content_type, text) = self.metrics.answer(accept);
                Page { status: 200, content_type, body: text.into_bytes() }
            }
            "/healthz" => self.answer(self.hangs()),
            "/readyz" => self.answer(self.not_ready()),
            _ => return None,
        })
    }
}
