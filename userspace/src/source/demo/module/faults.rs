//! Telling the module to fail, to lie or to err, at a chosen call.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use septwatch_common::Leaf;

use super::lock;

/// What the module does instead of what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer this status and do nothing.
    Fail(u64),
    /// Answer success and do nothing.
    Lie,
    /// Do it to another page: a guest frame for leaves that take a guest address, a frame for the others.
    WrongPage(u64),
    /// Do it although ownership, order or TLB tracking forbid it.
    Unchecked,
}

/// One rule. It applies to calls of `leaf` that match, after `skip` of them, `times` times, and is then gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which leaf errs.
    pub leaf: Leaf,
    /// Only for the TD whose TDR is in this frame.
    pub td: Option<u64>,
    /// Only for this guest frame, or this frame where the leaf takes no guest address.
    pub page: Option<u64>,
    /// Matching calls that go well before the first that does not.
    pub skip: u32,
    /// How many matching calls err.
    pub times: u32,
    /// What happens then.
    pub action: Action,
}

impl Fault {
    /// A rule for the next call of `leaf` on any TD and page.
    pub const fn next(leaf: Leaf, action: Action) -> Self {
        Self { leaf, td: None, page: None, skip: 0, times: 1, action }
    }

    /// The same, only for this TD (by the frame of its TDR).
    #[must_use]
    pub const fn of_td(mut self, tdr: u64) -> Self {
        self.td = Some(tdr);
        self
    }

    /// The same, only for this guest frame (or frame, see [`Fault::page`]).
    #[must_use]
    pub const fn of_page(mut self, page: u64) -> Self {
        self.page = Some(page);
        self
    }

    /// The same, `times` times.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

/// The rules in force. Without any, a call pays one atomic load.
#[derive(Debug, Default)]
pub(super) struct Faults {
    count: AtomicUsize,
    rules: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(super) fn add(&self, fault: Fault) {
        let mut rules = lock(&self.rules);
        rules.push(fault);
        self.count.store(rules.len(), Ordering::Release);
    }

    pub(super) fn clear(&self) {
        let mut rules = lock(&self.rules);
        rules.clear();
        self.count.store(0, Ordering::Release);
    }

    /// What the first matching rule says about this call. A call without a TD or page matches only rules that ask
    /// for none.
    pub(super) fn take(&self, leaf: Leaf, td: Option<u64>, page: Option<u64>) -> Option<Action> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut rules = lock(&self.rules);
        let index = rules.iter().position(|rule| {
            rule.leaf == leaf
                && (rule.td.is_none() || rule.td == td)
                && (rule.page.is_none() || rule.page == page)
        })?;
        let rule = &mut rules[index];
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        let action = rule.action;
        rule.times = rule.times.saturating_sub(1);
        if rule.times == 0 {
            rules.remove(index);
            self.count.store(rules.len(), Ordering::Release);
        }
        Some(action)
    }
}
