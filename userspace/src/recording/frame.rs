//! Frames: the units in which a recording is written, checked and read. See the room's own page for the bytes.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};

/// How a file begins: not ASCII, so that a text-mode copy shows at once, as in PNG.
pub const MAGIC: [u8; 8] = *b"\x89SWT\r\n\x1a\n";

/// Version of the format.
pub const VERSION: u16 = 1;

/// How a frame begins.
pub const MARKER: [u8; 4] = *b"swtf";

/// Most bytes that a frame may have, before and after compression: a reader takes no more memory for one.
pub const MAX_BYTES: u32 = 1 << 24;

/// The first 16 bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Preface {
    /// [`MAGIC`]
    pub magic: [u8; 8],
    /// [`VERSION`]
    pub version: U16,
    /// 0
    pub zero: U16,
    /// CRC-32 of what is before.
    pub crc: U32,
}

impl Preface {
    /// That of this version.
    pub fn new() -> Self {
        let mut preface = Self { magic: MAGIC, version: VERSION.into(), zero: 0.into(), crc: 0.into() };
        preface.crc = preface.sum().into();
        preface
    }

    /// What `crc` must be.
    pub fn sum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..12])
    }
}

impl Default for Preface {
    fn default() -> Self {
        Self::new()
    }
}

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`super::header::Header`], in JSON. The first.
    Header = 1,
    /// Records: see [`super::codec`].
    Records = 2,
    /// What was known when this file began, in postcard: [`super::State`].
    State = 3,
    /// [`super::header::End`], in JSON. The last.
    End = 4,
}

impl Kind {
    /// From its number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Header,
            2 => Self::Records,
            3 => Self::State,
            4 => Self::End,
            _ => return None,
        })
    }
}

/// How a frame begins; `stored` bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// [`MARKER`]
    pub marker: [u8; 4],
    /// [`Kind`]
    pub kind: u8,
    /// 0
    pub zero: [u8; 3],
    /// Of the file's frames, which.
    pub number: U32,
    /// Bytes that follow: one zstd frame.
    pub stored: U32,
    /// Bytes that it becomes.
    pub raw: U32,
    /// Records in it.
    pub records: U32,
    /// Records in the frames before it.
    pub first: U64,
    /// CRC-32 of the bytes that follow.
    pub payload_crc: U32,
    /// CRC-32 of what is before.
    pub crc: U32,
}

/// Bytes of a frame's head.
pub const HEAD: usize = size_of::<Head>();

const _: () = assert!(HEAD == 40 && size_of::<Preface>() == 16);

impl Head {
    /// The head of a frame with this payload.
    pub fn new(kind: Kind, number: u32, raw: u32, records: u32, first: u64, payload: &[u8]) -> Self {
        let mut head = Self {
            marker: MARKER,
            kind: kind as u8,
            zero: [0; 3],
            number: number.into(),
            stored: (payload.len() as u32).into(),
            raw: raw.into(),
            records: records.into(),
            first: first.into(),
            payload_crc: crc32fast::hash(payload).into(),
            crc: 0.into(),
        };
        head.crc = head.sum().into();
        head
    }

    /// What `crc` must be.
    pub fn sum(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..HEAD - 4])
    }

    /// Whether it is a head, and of a frame that may be read.
    pub fn is_sound(&self) -> bool {
        let small = |bytes: U32| bytes.get() <= MAX_BYTES;
        self.marker == MARKER && self.crc.get() == self.sum() && small(self.stored) && small(self.raw)
    }
}
