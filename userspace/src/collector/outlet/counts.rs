//! Exact counts of what became of what an output was given.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use crate::{collector::message::Message, here::monotonic_ns, locked::lock, model::histogram::Spans};

/// What became of what an output was given: offered = delivered + lost + those that wait.
#[derive(Debug, Default)]
pub struct Counts {
    offered: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
    trouble: Mutex<Option<String>>,
    delays: Mutex<Spans>,
}

/// [`Counts`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages that the output was given.
    pub offered: u64,
    /// Of them, those that it passed on.
    pub delivered: u64,
    /// Of them, those that it will never pass on.
    pub lost: u64,
    /// Why it last failed to; none since it last succeeded.
    pub trouble: Option<String>,
}

impl Counted {
    /// Messages that wait for their turn.
    pub const fn waiting(&self) -> u64 {
        self.offered.saturating_sub(self.delivered).saturating_sub(self.lost)
    }
}

impl Counts {
    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        // Offered last: what is counted as delivered was offered before.
        let (delivered, lost) = (self.delivered.load(Ordering::Acquire), self.lost.load(Ordering::Acquire));
        let trouble = lock(&self.trouble).clone();
        Counted { offered: self.offered.load(Ordering::Acquire), delivered, lost, trouble }
    }

    /// So many were given to it.
    pub(in crate::collector) fn offered(&self, messages: u64) {
        self.offered.fetch_add(messages, Ordering::Release);
    }

    /// So many were passed on.
    pub(in crate::collector) fn delivered(&self, messages: u64) {
        self.delivered.fetch_add(messages, Ordering::Release);
        *lock(&self.trouble) = None;
    }

    /// These are passed on now: how long violations took from the kernel to there.
    pub(super) fn took(&self, messages: &[Arc<Message>]) {
        let mut verdicts = messages.iter().filter_map(|message| message.verdict.as_ref()).peekable();
        if verdicts.peek().is_none() {
            return;
        }
        let now_ns = monotonic_ns();
        let mut delays = lock(&self.delays);
        verdicts.for_each(|verdict| delays.record(now_ns.saturating_sub(verdict.time_ns)));
    }

    /// From violations in the kernel to their having been passed on, of those that all went well with.
    pub fn delays(&self) -> Spans {
        lock(&self.delays).clone()
    }

    /// So many more are lost; true if that is news.
    pub(in crate::collector) fn lost(&self, messages: u64, why: &str) -> bool {
        self.lost.fetch_add(messages, Ordering::Release);
        self.troubled(why)
    }

    /// It does not get on; true if that is news.
    pub(in crate::collector) fn troubled(&self, why: &str) -> bool {
        let mut trouble = lock(&self.trouble);
        let is_news = trouble.is_none();
        *trouble = Some(why.to_owned());
        is_news
    }

    /// So many are lost by now.
    pub(super) fn lost_so_far(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }

    /// So many were passed on, and others with them were lost: that is no end of trouble.
    pub(super) fn delivered_beside_lost(&self, messages: u64) {
        self.delivered.fetch_add(messages, Ordering::Release);
    }
}
