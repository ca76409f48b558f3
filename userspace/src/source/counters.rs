//! What each CPU counts, added up.

use aya::Pod;
use septwatch_common::{
    Violation,
    config::{Answers, Counters, Produced, SHAPES, Shared},
};

/// [`Counters`] in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct CountersPod(pub Counters);
// SAFETY: numbers only, without padding.
unsafe impl Pod for CountersPod {}

/// [`Shared`] in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct SharedPod(pub(super) Shared);
// SAFETY: numbers only, without padding.
unsafe impl Pod for SharedPod {}

/// Nothing counted yet.
pub const NOTHING: Counters = Counters {
    vital: Produced { produced: 0, lost: 0 },
    pages: Produced { produced: 0, lost: 0 },
    outside: 0,
    unread: 0,
    calls: [Answers { ok: 0, busy: 0, error: 0 }; SHAPES],
    violations: [0; Violation::ALL.len()],
};

/// Both together.
pub fn add(mut sum: Counters, one: &Counters) -> Counters {
    sum.vital = both(sum.vital, one.vital);
    sum.pages = both(sum.pages, one.pages);
    sum.outside += one.outside;
    sum.unread += one.unread;
    for (sum, one) in sum.calls.iter_mut().zip(&one.calls) {
        *sum = Answers { ok: sum.ok + one.ok, busy: sum.busy + one.busy, error: sum.error + one.error };
    }
    for (sum, one) in sum.violations.iter_mut().zip(&one.violations) {
        *sum += one;
    }
    sum
}

fn both(a: Produced, b: Produced) -> Produced {
    Produced { produced: a.produced + b.produced, lost: a.lost + b.lost }
}
