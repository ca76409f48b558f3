//! Frames counted: of each TD how many are in which state, and of one TD a map of its guest frames.
//!
//! Made from the lines of a ledger as they are at one moment, the kernel's or that of a replay. Nothing is followed from
//! event to event, so that nothing can go out of step.

use std::collections::BTreeMap;

use septwatch_common::{Line, PageKind, State};

/// Blocks of a map up to which each guest frame has its own.
const SINGLE: usize = 16_384;

/// Guest frames of a block where there are more: what one 2M leaf maps.
const TOGETHER: u64 = 512;

/// Frames by what the TDX module holds of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States {
    /// When, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Frames in [`State::Mapped`].
    pub mapped: u64,
    /// Frames in [`State::Blocked`].
    pub blocked: u64,
    /// Frames in [`State::Removed`].
    pub removed: u64,
    /// Frames in [`State::Owned`]: S-EPT and control pages.
    pub owned: u64,
    /// Frames of any state that the page allocator has received all the same.
    pub violated: u64,
}

impl States {
    /// Counts a frame in.
    pub fn count(&mut self, state: State, released: bool) {
        let counted = match state {
            State::Free | State::Tentative => return,
            State::Mapped => &mut self.mapped,
            State::Blocked => &mut self.blocked,
            State::Removed => &mut self.removed,
            State::Owned => &mut self.owned,
        };
        *counted += 1;
        self.violated += u64::from(released);
    }

    fn add(&mut self, other: &Self) {
        self.mapped += other.mapped;
        self.blocked += other.blocked;
        self.removed += other.removed;
        self.owned += other.owned;
        self.violated += other.violated;
    }
}

/// Guest frames that lie together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The first.
    pub gfn: u64,
    /// How many of them are in which state.
    pub states: States,
}

/// A map of guest frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// Guest frames of a block: 1, or 512 where there are many.
    pub each: u64,
    /// Blocks that have lent frames, by gfn.
    pub blocks: Vec<Block>,
}

/// Frames counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// By the TD's index.
    pub tds: Vec<States>,
    /// The TD of which a map is made, by its index.
    pub wanted: Option<u16>,
    /// Its guest frames.
    pub grid: Grid,
}

impl Census {
    /// Counts the frames of open lines. `wanted` is the index of the TD of which a map is made.
    pub fn of(lines: impl Iterator<Item = (u64, Line)>, wanted: Option<u16>, now_ns: u64) -> Self {
        let mut tds = Vec::<States>::new();
        let mut map = Map { each: 1, ..Map::default() };
        for (_, line) in lines {
            let owner = usize::from(line.owner());
            if owner >= tds.len() {
                tds.resize(owner + 1, States { time_ns: now_ns, ..States::default() });
            }
            tds[owner].count(line.state(), line.is_released());
            if wanted == Some(line.owner()) && line.kind() == PageKind::Leaf {
                map.count(line);
            }
        }
        Self { tds, wanted, grid: map.finish() }
    }

    /// The frames of a TD.
    pub fn states(&self, index: u16) -> States {
        self.tds.get(usize::from(index)).copied().unwrap_or_default()
    }
}

/// A map that is being made.
#[derive(Default)]
struct Map {
    each: u64,
    blocks: BTreeMap<u64, States>,
    /// The block of the last frame: frames come in runs.
    last: (u64, States),
}

impl Map {
    fn count(&mut self, line: Line) {
        if self.last.0 != line.gfn() / self.each * self.each {
            self.flush();
            // Blocks may be larger by now.
            self.last.0 = line.gfn() / self.each * self.each;
        }
        self.last.1.count(line.state(), line.is_released());
    }

    fn flush(&mut self) {
        let (gfn, states) = std::mem::take(&mut self.last);
        if states != States::default() {
            self.blocks.entry(gfn).or_default().add(&states);
        }
        if self.each == 1 && self.blocks.len() > SINGLE {
            self.each = TOGETHER;
            for (gfn, states) in std::mem::take(&mut self.blocks) {
                self.blocks.entry(gfn / TOGETHER * TOGETHER).or_default().add(&states);
            }
        }
    }

    fn finish(mut self) -> Grid {
        self.flush();
        let blocks = self.blocks.into_iter().map(|(gfn, states)| Block { gfn, states });
        Grid { each: self.each, blocks: blocks.collect() }
    }
}

#[cfg(test)]
mod tests {
    use septwatch_common::Level;

    use super::*;

    fn leaf(owner: u16, gfn: u64) -> Line {
        Line::open(PageKind::Leaf, owner, Level::L4K, gfn)
    }

    #[test]
    fn frames_are_counted_by_td_and_state() {
        let lines =
            [leaf(1, 7), leaf(1, 9), leaf(2, 7), Line::open(PageKind::Sept, 1, Level::L2M, 0), leaf(1, 8)];
        let census = Census::of((0..).zip(lines), Some(1), 5);
        let states = census.states(1);
        assert_eq!((states.mapped, states.owned, states.violated, states.time_ns), (3, 1, 0, 5));
        assert_eq!(census.states(2).mapped, 1);
        assert_eq!(census.states(3), States::default());
        let gfns: Vec<_> = census.grid.blocks.iter().map(|block| block.gfn).collect();
        assert_eq!((census.grid.each, gfns.as_slice()), (1, [7, 8, 9].as_slice()));
    }

    #[test]
    fn many_frames_are_put_together() {
        let count = 2 * SINGLE as u64 + 3;
        let census = Census::of((0..count).map(|gfn| (gfn, leaf(1, gfn))), Some(1), 0);
        assert_eq!(census.grid.each, TOGETHER);
        let mapped: Vec<_> = census.grid.blocks.iter().map(|block| block.states.mapped).collect();
        assert_eq!(mapped.iter().sum::<u64>(), count);
        assert!(mapped[..mapped.len() - 1].iter().all(|mapped| *mapped == TOGETHER));
        assert_eq!(mapped.last(), Some(&3));
    }
}
