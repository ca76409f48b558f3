//! The life of a violation's page: what happened to it since it was lent last.

use septwatch_common::{
    Leaf,
    wire::{Hook, ViolationEvent},
};

use crate::{
    minimize::subject::{Part, Span, Subject},
    recording::tds::Known,
    source::event::Event,
};

/// Events that are told at most.
const LIFE: usize = 40;

/// A page's life around a violation.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Since the page was lent last: the first and the last of it.
    pub events: Vec<Event>,
    /// Events of it that are not told, after the first half.
    pub skipped: u64,
    /// It begins with the lending.
    pub begins: bool,
    /// The page was lent again: what follows is another life.
    over: bool,
}

impl Life {
    /// Puts it together from events that may be about the page, in their order. Other TDs that were lent the frame belong
    /// to it.
    pub fn of(violation: &ViolationEvent, td: Option<&Known>, events: &[&Event]) -> Self {
        let mut subject = Subject::of(violation, td);
        for event in events {
            if let Event::Call(call) = event
                && lends(call.call.leaf)
                && call.call.pfn == violation.pfn
                && subject.tds.iter().all(|td| td.tdr != call.call.tdr)
            {
                let tdr = call.call.tdr;
                subject.tds.push(Span { id: 0, tdr, begun_ns: 0, ended_ns: u64::MAX });
            }
        }
        let mut life = Self::default();
        for event in events {
            if subject.part(event) == Part::Page {
                life.event(event, violation.header.time_ns);
            }
        }
        life
    }

    /// Takes an event about the page in; `own_ns` is when the violation happened, in ns of CLOCK_MONOTONIC.
    pub fn event(&mut self, event: &Event, own_ns: u64) {
        if self.over || says_nothing_new(event, own_ns) {
            return;
        }
        let lends = matches!(event, Event::Call(call) if call.status == 0 && lends(call.call.leaf));
        let time_ns = event.header().time_ns;
        if lends && time_ns < own_ns {
            // What was before is another lending's life.
            self.events.clear();
            self.skipped = 0;
            self.begins = true;
        } else if lends && time_ns > own_ns {
            self.over = true;
            return;
        }
        self.events.push(event.clone());
        if self.events.len() > LIFE {
            self.events.remove(LIFE / 2);
            self.skipped += 1;
        }
    }
}

/// Whether an event is told by another already: a release by its verdict, or by the tracepoint before; and the TRACKs of
/// other zaps, once this page's is over.
fn says_nothing_new(event: &Event, own_ns: u64) -> bool {
    match event {
        Event::Frame(frame) => frame.hook == Hook::PageFreeBatched as u8 || frame.header.time_ns == own_ns,
        Event::Call(call) => {
            let tracks = call.call.leaf == Leaf::MemTrack as u8 && call.status == 0;
            tracks && call.call.header.time_ns > own_ns
        }
        _ => false,
    }
}

fn lends(leaf: u8) -> bool {
    use Leaf::{MemPageAdd, MemPageAug, MemSeptAdd, MngAddcx, MngCreate, VpAddcx, VpCreate};
    let leaf = Leaf::from_number(u64::from(leaf));
    leaf.is_some_and(|leaf| {
        matches!(leaf, MemPageAdd | MemPageAug | MemSeptAdd | MngAddcx | MngCreate | VpAddcx | VpCreate)
    })
}
