//! The life of a violation's page: what happened to it since it was lent last.

use septwatch_common::{
    Leaf, Level,
    wire::{Hook, SeamcallErr, ViolationEvent},
    zap::PFN_UNKNOWN,
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
    /// Puts it together from events that may be about the page, in their order; of other pages, all may be missing. Other
    /// TDs that were lent the frame belong to it.
    pub fn of(violation: &ViolationEvent, td: Option<&Known>, events: &[&Event]) -> Self {
        let mut subject = Subject::of(violation, td);
        // What was before the last lending is another life, and of that the end may be missing.
        let is_begin =
            |event: &&Event| event.header().time_ns < violation.header.time_ns && is_lent(violation, event);
        let begin = events.iter().rposition(is_begin).unwrap_or(0);
        let events = &events[begin..];
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

/// Whether an event lends what a violation is about: its frame, or a frame for its guest frame.
fn is_lent(violation: &ViolationEvent, event: &Event) -> bool {
    let Event::Call(SeamcallErr { call, status: 0, .. }) = event else { return false };
    if !lends(call.leaf) {
        return false;
    }
    let frames = Level::from_tdx(call.level.into()).map_or(1, Level::frames);
    let has = |first: u64, one: u64| first <= one && one - first < frames;
    let maps = call.leaf == Leaf::MemPageAug as u8 || call.leaf == Leaf::MemPageAdd as u8;
    if violation.pfn == PFN_UNKNOWN {
        maps && call.tdr == violation.tdr && has(call.gfn, violation.gfn)
    } else if maps {
        has(call.pfn, violation.pfn)
    } else {
        call.pfn == violation.pfn
    }
}

fn lends(leaf: u8) -> bool {
    use Leaf::{MemPageAdd, MemPageAug, MemSeptAdd, MngAddcx, MngCreate, VpAddcx, VpCreate};
    let leaf = Leaf::from_number(u64::from(leaf));
    leaf.is_some_and(|leaf| {
        matches!(leaf, MemPageAdd | MemPageAug | MemSeptAdd | MngAddcx | MngCreate | VpAddcx | VpCreate)
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::model::stories::tests::call;

    #[test]
    fn an_earlier_life_whose_end_is_not_told_says_nothing() {
        use Leaf::{MemPageAug, MemRangeBlock, MemTrack};
        let mut violation = ViolationEvent::new_zeroed();
        (violation.header.time_ns, violation.td_id, violation.tdr) = (100, 1, 77);
        (violation.gfn, violation.pfn) = (7, 5007);
        let td = Known { id: 1, tdr: 77, begun_ns: 0, ended_ns: None, tgid: 1, comm: String::new() };
        let events = [
            // The frame was lent for another guest frame before, and the REMOVE of that is not told.
            call(1, MemPageAug, 9, 5007),
            call(2, MemRangeBlock, 9, PFN_UNKNOWN),
            call(3, MemTrack, 0, PFN_UNKNOWN),
            call(10, MemPageAug, 7, 5007),
            // That guest frame again, with another frame.
            call(11, MemRangeBlock, 9, PFN_UNKNOWN),
            call(12, MemTrack, 0, PFN_UNKNOWN),
            call(20, MemRangeBlock, 7, PFN_UNKNOWN),
            call(21, MemTrack, 0, PFN_UNKNOWN),
        ];
        let life = Life::of(&violation, Some(&td), &events.iter().collect::<Vec<_>>());
        let times: Vec<_> = life.events.iter().map(|event| event.header().time_ns).collect();
        assert_eq!(times, [10, 20, 21]);
        assert!(life.begins && life.skipped == 0);
    }
}
