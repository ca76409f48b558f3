//! The memory of a host that is not this one, and which of its frames are lent.

use septwatch::hooks::load::{CHUNK_BYTES, chunks};
use septwatch_common::config::CHUNK;

/// log2 of the frames of one piece of memory, as the programs have it: a hole of 64 GiB follows every 64 GiB.
const PIECE: u32 = 24;
/// Frames in a row that are lent altogether.
pub const DENSE: u64 = 1 << 18;

/// A host.
pub struct Host {
    /// TiB of memory.
    pub tib: u64,
    /// Frames of memory, without holes.
    pub frames: u64,
    /// Of so many chunks one is filled: what all would take is more than may be taken here.
    pub every: u64,
}

/// Some of its frames, counted over all memory without the holes.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    pub first: u64,
    pub stride: u64,
    pub count: u64,
}

impl Frames {
    /// Each frame in a row.
    pub const fn dense(first: u64, count: u64) -> Self {
        Self { first, stride: 1, count }
    }

    /// The same, moved.
    pub const fn at(self, more: u64) -> Self {
        Self { first: self.first + more, ..self }
    }

    /// The `nth` of so many parts, of which it has at most `most` frames.
    pub fn part(self, parts: u64, nth: u64, most: u64) -> Self {
        let begin = |nth| self.count * nth / parts;
        let count = (begin(nth + 1) - begin(nth)).min(most);
        Self { first: self.first + begin(nth) * self.stride, count, ..self }
    }
}

impl Host {
    /// Fills at most `most` bytes with chunks.
    pub fn of(tib: u64, most: u64) -> Self {
        let frames = tib << (40 - 12);
        let every = (chunks(frames, None) * CHUNK_BYTES).div_ceil(most.max(CHUNK_BYTES));
        Self { tib, frames, every }
    }

    /// From one chunk that is filled to the next, in frames.
    const fn stride(&self) -> u64 {
        self.every * CHUNK as u64
    }

    /// The first frame of each chunk that is filled, from `first` to `last`.
    const fn chunks_of(&self, first: u64, last: u64) -> Frames {
        Frames { first, stride: self.stride(), count: (last - first) / self.stride() }
    }

    /// What is lent at first, beside the first GiB: a frame of each chunk of the first quarter of memory.
    pub const fn lent(&self) -> Frames {
        self.chunks_of(DENSE.next_multiple_of(self.stride()), self.frames / 4)
    }

    /// Foreign frames, far from those that are lent.
    pub const fn foreign(&self) -> Frames {
        self.chunks_of((self.frames / 4).next_multiple_of(self.stride()), self.frames / 2)
    }

    /// The highest frame number, with the holes.
    pub const fn highest_pfn(&self) -> u64 {
        let last = self.frames - 1;
        last + ((last >> PIECE) << PIECE)
    }

    /// What is lent in the end: a frame of each chunk of the rest.
    pub const fn rest(&self) -> Frames {
        self.chunks_of((self.frames / 4).next_multiple_of(self.stride()), self.frames)
    }

    /// How it is called.
    pub fn name(&self) -> String {
        format!("{} TiB", self.tib)
    }
}
