//! The ledger once more, from page records alone: what it finds must be what the kernel side found.
//!
//! The same [`tracker`] runs on the same events, in the order in which they were recorded. Vital records are no input:
//! verdicts are what the findings are compared with ([`compare`]).

pub mod compare;

use septwatch_common::{
    Leaf, Level, Status,
    tracker::{self, Call, Finding},
    wire::{Frame, Hook, SeamcallErr},
    zap::{Answer, PFN_UNKNOWN},
};

use super::store::Ledger;
use crate::source::event::Event;
use compare::{Compare, Differences};

/// A violation that the re-run found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// When, in ns of CLOCK_MONOTONIC: the time of the record that told.
    pub time_ns: u64,
    /// The TD's number in this ledger; 0 where none is known. The kernel side's is another if the re-run began later.
    pub td_id: u32,
    /// Frame of the TD's TDR; 0 where no TD is known.
    pub tdr: u64,
    /// Number of the leaf, or [`Hook`].
    pub hook: u8,
    /// All else.
    pub finding: Finding,
}

/// A ledger that lives through a recording.
#[derive(Debug, Default)]
pub struct Rerun {
    ledger: Ledger,
    compare: Compare,
    unreadable: u64,
}

impl Rerun {
    /// Begins with this ledger: an empty one, or what a snapshot restored.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, ..Self::default() }
    }

    /// The ledger as it is now.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Page records that no program could have made: a leaf, level or hook of that number does not exist. They changed
    /// nothing.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Takes an event in: a page record into the ledger, a vital one into the comparison.
    #[inline]
    pub fn apply(&mut self, event: &Event) -> Option<Found> {
        let mut finding = Finding::NONE;
        let (header, hook, violation) = match event {
            Event::Call(call) => (&call.call.header, call.call.leaf, self.call(call, &mut finding)),
            Event::Frame(frame) => (&frame.header, frame.hook, self.frame(frame, &mut finding)),
            Event::Violation(recorded) => {
                self.compare.recorded(recorded, &self.ledger);
                return None;
            }
            Event::Life(life) => {
                self.compare.life(life);
                return None;
            }
            Event::Vm(_) => return None,
        };
        let Some(violation) = violation else {
            self.unreadable += 1;
            return None;
        };
        violation.then(|| self.found(header.time_ns, hook, &finding))
    }

    /// Records were lost: what is found from here on may differ, and is not compared.
    pub fn lost(&mut self) {
        self.compare.stop();
    }

    /// How findings and recorded verdicts differ, once all events are taken in.
    pub fn differences(self) -> Differences {
        self.compare.finish(&self.ledger)
    }

    #[cold]
    fn found(&mut self, time_ns: u64, hook: u8, finding: &Finding) -> Found {
        let td = self.ledger.td(finding.td);
        let (td_id, tdr) = td.map_or((0, 0), |record| (record.id, record.tdr));
        let found = Found { time_ns, td_id, tdr, hook, finding: *finding };
        self.compare.found(&found);
        found
    }

    /// As the program at the SEAMCALL's return. None: there is no such leaf, or level.
    #[inline]
    fn call(&mut self, record: &SeamcallErr, out: &mut Finding) -> Option<bool> {
        let leaf = Leaf::from_number(u64::from(record.call.leaf))?;
        let call = call_of(leaf, record)?;
        self.ledger.running.now_ns = record.call.header.time_ns;
        self.ledger.running.tgid = record.call.header.tgid;
        let violation = tracker::seamcall(&mut self.ledger, leaf, &call, out);
        // Recorded life events tell these, too.
        drop(self.ledger.stages());
        Some(violation)
    }

    /// As the program at the allocator's tracepoint. None: there is no such hook.
    #[inline]
    fn frame(&mut self, record: &Frame, out: &mut Finding) -> Option<bool> {
        let now_ns = record.header.time_ns;
        let batched = match record.hook {
            hook if hook == Hook::PageFree as u8 => false,
            hook if hook == Hook::PageFreeBatched as u8 => true,
            hook if hook == Hook::PageAlloc as u8 => {
                return Some(tracker::allocation(&mut self.ledger, record.pfn, now_ns, out));
            }
            _ => return None,
        };
        Some(tracker::release(&mut self.ledger, record.pfn, batched, now_ns, out))
    }
}

/// The call that a record was made of.
#[inline]
fn call_of(leaf: Leaf, record: &SeamcallErr) -> Option<Call> {
    let SeamcallErr { call, status, ext_err1, ext_err2 } = *record;
    let (tdr, tdvpr, pfn) = match leaf {
        Leaf::VpAddcx => (PFN_UNKNOWN, call.tdr, call.pfn),
        Leaf::VpCreate => (call.tdr, call.pfn, PFN_UNKNOWN),
        _ => (call.tdr, PFN_UNKNOWN, call.pfn),
    };
    Some(Call {
        tdr,
        pfn,
        tdvpr,
        gfn: call.gfn,
        level: Level::from_tdx(u64::from(call.level))?,
        hkid: call.hkid,
        answer: Answer { status: Status(status), ext_err1, ext_err2, now_ns: call.header.time_ns },
    })
}
