//! Writing frames, one after the other.

use std::io::{self, Write};

use zerocopy::IntoBytes as _;
use zstd::bulk::Compressor;

use super::{
    State,
    frame::{HEAD, Head, Kind, Preface},
    header::{End, Header},
};

/// zstd's own default of 3 makes page records a tenth smaller, and takes twice as long.
const LEVEL: i32 = 1;

/// The contents of a frame, compressed.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Room for the head, then one zstd frame.
    bytes: Vec<u8>,
    raw: u32,
    /// Records in it.
    pub records: u32,
}

impl Packed {
    /// Bytes that it takes in a file.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it takes none: it always takes some.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The zstd frame, and how many bytes it becomes.
    pub fn stored(&self) -> (&[u8], u32) {
        (&self.bytes[HEAD..], self.raw)
    }
}

/// Compresses frames.
pub struct Packer(Compressor<'static>);

impl Packer {
    /// Ready to compress.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> io::Result<Self> {
        Compressor::new(LEVEL).map(Self)
    }

    /// Compresses the contents of a frame, of at most [`super::frame::MAX_BYTES`].
    ///
    /// # Errors
    /// No memory.
    pub fn pack(&mut self, raw: &[u8], records: u32) -> io::Result<Packed> {
        let mut bytes = vec![0; HEAD + zstd::zstd_safe::compress_bound(raw.len())];
        let stored = self.0.compress_to_buffer(raw, &mut bytes[HEAD..])?;
        bytes.truncate(HEAD + stored);
        Ok(Packed { bytes, raw: raw.len() as u32, records })
    }
}

/// A recording that is being written.
pub struct Writer<W> {
    output: W,
    number: u32,
    first: u64,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a recording: its header, and what was known before its first record.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(output: W, packer: &mut Packer, header: &Header, state: &State) -> io::Result<Self> {
        let mut writer = Self { output, number: 0, first: 0, written: 0 };
        let preface = Preface::new();
        writer.output.write_all(preface.as_bytes())?;
        writer.written = size_of::<Preface>() as u64;
        writer.frame(Kind::Header, &mut packer.pack(&serde_json::to_vec(header)?, 0)?)?;
        if !state.is_empty() {
            writer.frame(Kind::State, &mut packer.pack(&state.to_bytes(), 0)?)?;
        }
        Ok(writer)
    }

    /// Adds records.
    ///
    /// # Errors
    /// They cannot be written: up to [`Self::written`] the recording is whole.
    pub fn records(&mut self, packed: &mut Packed) -> io::Result<()> {
        self.frame(Kind::Records, packed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// As for [`Self::records`].
    pub fn end(&mut self, packer: &mut Packer, end: &End) -> io::Result<()> {
        self.frame(Kind::End, &mut packer.pack(&serde_json::to_vec(end)?, 0)?)?;
        self.output.flush()
    }

    fn frame(&mut self, kind: Kind, packed: &mut Packed) -> io::Result<()> {
        let (head, payload) = packed.bytes.split_at_mut(HEAD);
        let made = Head::new(kind, self.number, packed.raw, packed.records, self.first, payload);
        head.copy_from_slice(made.as_bytes());
        self.output.write_all(&packed.bytes)?;
        self.number = self.number.wrapping_add(1);
        self.first += u64::from(packed.records);
        self.written += packed.bytes.len() as u64;
        Ok(())
    }

    /// Bytes of whole frames.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Records in them.
    pub fn recorded(&self) -> u64 {
        self.first
    }

    /// Where it is written to.
    pub fn output(&mut self) -> &mut W {
        &mut self.output
    }
}
