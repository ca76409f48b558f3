//! What the HTTP server counts of its clients.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{families::Families, list};
use crate::collector::http::{CLASSES, Clients};

/// Writes it.
pub fn encode(to: &mut impl Families, clients: &Clients) -> fmt::Result {
    let figure = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    to.counters(
        list::HTTP_ANSWERS,
        CLASSES.iter().zip(&clients.answers).map(|(class, count)| ([("class", *class)], figure(count))),
    )?;
    to.counter(list::HTTP_REFUSED_REQUESTS, figure(&clients.refused))?;
    to.counters(
        list::HTTP_FAILED_CONNECTIONS,
        [("turned_away", &clients.turned_away), ("timeout", &clients.timeouts), ("broken", &clients.broken)]
            .map(|(reason, count)| ([("reason", reason)], figure(count))),
    )
}
