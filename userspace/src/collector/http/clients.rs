//! What a server counts of its clients.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;

/// Answers by class of their status, as [`Clients::answers`] has them.
pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// What the server counts of its clients.
#[derive(Debug, Default)]
pub struct Clients {
    /// Answers to requests, by class of their status: [`CLASSES`]. What is no HTTP counts as a connection that is broken.
    pub answers: [AtomicU64; CLASSES.len()],
    /// Requests that were not let in: they showed no token, or a wrong one. They are among the answers too.
    pub refused: AtomicU64,
    /// Connections that were closed at once, for there were too many.
    pub turned_away: AtomicU64,
    /// Connections that took too long: with the TLS handshake, with the head of a request, with reading an answer, or
    /// altogether.
    pub timeouts: AtomicU64,
    /// Connections that broke off, or over which came what is neither HTTP nor, where it is spoken, TLS.
    pub broken: AtomicU64,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// In good order.
    Well,
    /// It took too long.
    Late,
    /// Without an end.
    Broken,
}

impl Clients {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(answers) = self.answers.get(class) {
            Self::count(answers);
        }
        if status == StatusCode::UNAUTHORIZED {
            Self::count(&self.refused);
        }
    }

    pub(super) fn ended(&self, ended: Ended) {
        match ended {
            Ended::Well => {}
            Ended::Late => Self::count(&self.timeouts),
            Ended::Broken => Self::count(&self.broken),
        }
    }
}
