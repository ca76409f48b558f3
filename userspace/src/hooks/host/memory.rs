//! System RAM, from /proc/iomem: what the ledger must cover, and what it costs.

use std::{fs, io, path::Path};

use serde::Serialize;

const IOMEM: &str = "/proc/iomem";
/// log2 of the size of a frame.
const FRAME_SHIFT: u32 = 12;
/// Bytes of a line of the ledger.
const LINE_BYTES: u64 = 8;

/// Why System RAM is not known.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file cannot be read.
    #[error("{IOMEM}: {0}")]
    Read(#[from] io::Error),
    /// A line is not `start-end : name`.
    #[error("{IOMEM}: line {0} is not `start-end : name`")]
    Line(usize),
    /// All addresses read as 0.
    #[error("{IOMEM} hides the addresses: needs CAP_SYS_ADMIN")]
    Hidden,
    /// No line names System RAM.
    #[error("{IOMEM} lists no System RAM")]
    None,
}

/// A range of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// First frame.
    pub first_pfn: u64,
    /// Number of frames.
    pub frames: u64,
}

/// The host's System RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// In the order of the addresses, each of whole frames.
    pub ranges: Vec<Range>,
}

impl Memory {
    /// Of the running kernel.
    ///
    /// # Errors
    /// [`MemoryError`] where the file cannot be read, hides its addresses, or names none.
    pub fn running() -> Result<Self, MemoryError> {
        Self::parse(&fs::read_to_string(Path::new(IOMEM))?)
    }

    fn parse(text: &str) -> Result<Self, MemoryError> {
        let mut ranges = Vec::new();
        let mut hidden = false;
        for (line, entry) in (1..).zip(text.lines()) {
            let malformed = || MemoryError::Line(line);
            let (range, name) = entry.trim_start().split_once(" : ").ok_or_else(malformed)?;
            // "System RAM (kmem)" is memory of a device that was given to the allocator: it lies under the device.
            if !name.starts_with("System RAM") {
                continue;
            }
            let (start, last) = range.split_once('-').ok_or_else(malformed)?;
            let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| malformed());
            let (start, last) = (number(start)?, number(last)?);
            if last == 0 {
                hidden = true;
                continue;
            }
            let first_pfn = start.div_ceil(1 << FRAME_SHIFT);
            let end_pfn = (last >> FRAME_SHIFT) + u64::from(last & 0xfff == 0xfff);
            if let Some(frames) = end_pfn.checked_sub(first_pfn).filter(|frames| *frames > 0) {
                ranges.push(Range { first_pfn, frames });
            }
        }
        match (ranges.is_empty(), hidden) {
            (true, true) => Err(MemoryError::Hidden),
            (true, false) => Err(MemoryError::None),
            (false, _) => Ok(Self { ranges }),
        }
    }

    /// Number of 4 KiB frames.
    pub fn frames(&self) -> u64 {
        self.ranges.iter().map(|range| range.frames).sum()
    }

    /// The highest frame, 0 without any.
    pub fn highest_pfn(&self) -> u64 {
        self.ranges.iter().map(|range| range.first_pfn + range.frames - 1).max().unwrap_or(0)
    }

    /// Bytes of a ledger with a line for each frame.
    pub fn ledger_bytes(&self) -> u64 {
        self.frames() * LINE_BYTES
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test")]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_of_system_ram_count() {
        let memory = Memory::parse(
            "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n  00002000-00002fff : Kernel code\n\
             100000000-1000fffff : CXL Window 0\n  100000000-1000fffff : dax0.0\n    \
             100000000-1000fffff : System RAM (kmem)\n",
        )
        .unwrap();
        assert_eq!(
            memory.ranges,
            [Range { first_pfn: 1, frames: 0x9e }, Range { first_pfn: 0x10_0000, frames: 0x100 }]
        );
        assert_eq!((memory.frames(), memory.highest_pfn()), (0x19e, 0x10_00ff));
        assert_eq!(memory.ledger_bytes(), 0x19e * 8);
    }

    #[test]
    fn nothing_is_made_up() {
        let error = |text| Memory::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("00000000-00000000 : System RAM\n"),
            "/proc/iomem hides the addresses: needs CAP_SYS_ADMIN"
        );
        assert_eq!(error("00000000-00000fff : Reserved\n"), "/proc/iomem lists no System RAM");
        assert_eq!(error("0-fff : System RAM\nwhat\n"), "/proc/iomem: line 2 is not `start-end : name`");
        assert_eq!(error("0-xyz : System RAM\n"), "/proc/iomem: line 1 is not `start-end : name`");
    }
}
