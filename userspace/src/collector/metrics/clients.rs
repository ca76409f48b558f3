//! What the HTTP server counts of its clients.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::exposition::Exposition;
use crate::collector::http::{CLASSES, Clients};

/// Writes it.
pub fn encode(to: &mut Exposition<'_>, clients: &Clients) -> fmt::Result {
    let figure = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    to.counters(
        "septwatch_http_answers",
        "Requests that were answered, by class of the status",
        CLASSES.iter().zip(&clients.answers).map(|(class, count)| ([("class", *class)], figure(count))),
    )?;
    to.counter(
        "septwatch_http_refused_requests",
        "Requests that showed no token, or a wrong one",
        figure(&clients.refused),
    )?;
    to.counters(
        "septwatch_http_failed_connections",
        "Connections that were closed at once for there were too many, that took too long, or that broke off",
        [("turned_away", &clients.turned_away), ("timeout", &clients.timeouts), ("broken", &clients.broken)]
            .map(|(reason, count)| ([("reason", reason)], figure(count))),
    )
}
