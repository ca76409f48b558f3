//! What a violation is about, and which records tell of it.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use septwatch_common::{
    Leaf, Level, Line, PageKind,
    wire::{SeamcallErr, ViolationEvent},
    zap::PFN_UNKNOWN,
};

use crate::{recording::tds::Known, source::event::Event};

/// A TD for as long as its TDR is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its number.
    pub id: u32,
    /// Frame of its TDR.
    pub tdr: u64,
    /// When it began, in ns of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// When its TDR was given back; all ones where that is not known.
    pub ended_ns: u64,
}

impl From<&Known> for Span {
    fn from(td: &Known) -> Self {
        let ended_ns = td.ended_ns.unwrap_or(u64::MAX);
        Self { id: td.id, tdr: td.tdr, begun_ns: td.begun_ns, ended_ns }
    }
}

/// TDs, a leaf and its frames.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The TDs: the one that the violation is about, and others that had the frame.
    pub tds: Vec<Span>,
    /// Guest frames of the leaf; empty where none is known.
    pub gfns: Range<u64>,
    /// Frames of the leaf, or the page; empty where none is known.
    pub pfns: Range<u64>,
    /// By TDR, whether the leaf that it blocked last is this one: TRACK names none.
    zapping: HashMap<u64, bool>,
    /// By TDR, whether this leaf is blocked: until it is removed, every TRACK counts.
    blocked: HashMap<u64, bool>,
    /// Other leaves that the frame was mapped in, by TDR, first guest frame and level: their zaps are about it, too.
    leaves: HashSet<(u64, u64, u8)>,
    /// Other frames that were mapped in the leaf: they must be seen to have come back.
    frames: HashSet<u64>,
}

/// A page record seen from a [`Subject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It has nothing to do with it.
    None,
    /// It is about one of the TDs.
    Td,
    /// It is a step of a TD's life, or what became of another frame that was in the leaf before.
    Life,
    /// It is about the leaf or the frame.
    Page,
}

impl Subject {
    /// What a violation names: its TD, its guest frames, its frames.
    pub fn of(event: &ViolationEvent, td: Option<&Known>) -> Self {
        let mut subject = Self { tds: td.map(Span::from).into_iter().collect(), ..Self::default() };
        let line = Line(event.line);
        let is_leaf = !line.is_open() || line.kind() == PageKind::Leaf;
        let level = if line.is_open() && is_leaf { line.level() } else { Level::L4K };
        let head = level.head(event.gfn);
        let has_gfn = is_leaf && (event.gfn != 0 || line.is_open());
        if has_gfn {
            subject.gfns = head..head.saturating_add(level.frames());
        }
        if event.pfn != PFN_UNKNOWN {
            let into = if has_gfn { event.gfn - head } else { 0 };
            subject.set_frames(event.pfn.wrapping_sub(into), level.frames());
        }
        subject
    }

    /// It is about these frames.
    pub fn set_frames(&mut self, first: u64, count: u64) {
        self.pfns = first..first.saturating_add(count);
    }

    fn is_td(&self, tdr: u64, time_ns: u64) -> bool {
        self.tds.iter().any(|td| td.tdr == tdr && (td.begun_ns..=td.ended_ns).contains(&time_ns))
    }

    /// Which part an event has in it. Events are to be told in their order.
    pub fn part(&mut self, event: &Event) -> Part {
        match event {
            Event::Call(call) => self.call(call),
            Event::Frame(frame) if self.pfns.contains(&frame.pfn) => Part::Page,
            Event::Frame(frame) if self.frames.contains(&frame.pfn) => Part::Life,
            Event::Frame(_) => Part::None,
            Event::Life(life) => self.of_td(life.id),
            Event::Vm(vm) => self.of_td(vm.id),
            Event::Violation(violation) => {
                let same = self.pfns.contains(&violation.pfn)
                    || violation.gfn != 0 && self.gfns.contains(&violation.gfn);
                match self.of_td(violation.td_id) {
                    Part::None => Part::None,
                    _ if same => Part::Page,
                    _ => Part::Td,
                }
            }
        }
    }

    fn of_td(&self, id: u32) -> Part {
        if self.tds.iter().any(|td| td.id == id) { Part::Life } else { Part::None }
    }

    fn call(&mut self, event: &SeamcallErr) -> Part {
        let call = &event.call;
        let Some(leaf) = Leaf::from_number(u64::from(call.leaf)) else { return Part::None };
        let level = Level::from_tdx(u64::from(call.level)).unwrap_or(Level::L4K);
        let maps_leaf = matches!(leaf, Leaf::MemPageAdd | Leaf::MemPageAug);
        let frames = if maps_leaf { level.frames() } else { 1 };
        let about_frame = call.pfn != PFN_UNKNOWN
            && call.pfn < self.pfns.end
            && call.pfn.saturating_add(frames) > self.pfns.start;
        if call.tdr == PFN_UNKNOWN || leaf == Leaf::VpAddcx {
            // RECLAIM and write-backs name no TD; the TDR's own ends a life.
            let ends = self.tds.iter().any(|td| td.tdr == call.pfn && td.begun_ns <= call.header.time_ns);
            return if about_frame {
                Part::Page
            } else if ends || self.frames.contains(&call.pfn) {
                Part::Life
            } else {
                Part::None
            };
        }
        if !self.is_td(call.tdr, call.header.time_ns) {
            return Part::None;
        }
        if leaf == Leaf::MemTrack {
            let ours = [&self.zapping, &self.blocked].iter().any(|of| of.get(&call.tdr) == Some(&true));
            return if ours { Part::Page } else { Part::Td };
        }
        if !leaf.names_gpa() {
            return if about_frame { Part::Page } else { Part::Life };
        }
        let head = level.head(call.gfn);
        let own_gfn = head < self.gfns.end && head.saturating_add(level.frames()) > self.gfns.start;
        let leaf_of = (call.tdr, head, call.level);
        let about_gfn = leaf != Leaf::MemSeptAdd && (own_gfn || self.leaves.contains(&leaf_of));
        if leaf == Leaf::MemRangeBlock {
            self.zapping.insert(call.tdr, about_gfn);
        }
        if event.status == 0 {
            if about_gfn && matches!(leaf, Leaf::MemRangeBlock | Leaf::MemPageRemove) {
                self.blocked.insert(call.tdr, leaf == Leaf::MemRangeBlock);
            }
            if own_gfn && maps_leaf && self.pfns.is_empty() {
                // Until here it was not known which frame it is.
                self.set_frames(call.pfn, frames);
            } else if own_gfn && maps_leaf && !about_frame {
                self.frames.extend(call.pfn..call.pfn.saturating_add(frames));
            } else if about_frame && maps_leaf && !own_gfn {
                self.leaves.insert(leaf_of);
            }
        }
        if about_gfn || about_frame { Part::Page } else { Part::Td }
    }
}
