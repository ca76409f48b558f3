//! Reading records.

use septwatch_common::{
    wire::{Frame, Header, Kind, SeamcallErr, SeamcallOk, VERSION},
    zap::PFN_UNKNOWN,
};

use super::{Context, flag, unzigzag, what};
use crate::source::event::Event;

/// A record as it is in a frame.
#[derive(Debug, PartialEq)]
pub enum Record<'a> {
    /// JSON.
    Note(&'a [u8]),
    /// In the file's layout.
    Vital {
        /// The file's number of its kind.
        kind: u8,
        /// The record.
        bytes: &'a [u8],
    },
    /// A page record: it is where the decoder was told to put it.
    Page,
}

/// What is in a frame is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no record at byte {at} of the frame")]
pub struct Malformed {
    /// Where, in the frame that is no longer compressed.
    pub at: usize,
}

/// Reads the records of one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    context: Context,
    at: usize,
}

impl Decoder {
    /// Begins a frame.
    pub fn begin(&mut self) {
        self.context.cpus.clear();
        self.context.cpu = 0;
        self.context.time_ns = 0;
        self.at = 0;
    }

    /// The next record of `frame`, which is the same at every call since it began; a page record is put into `event`,
    /// where it is made, because millions of them are read a second. None: the frame is over.
    ///
    /// # Errors
    /// There is no record.
    #[inline]
    pub fn next<'a>(&mut self, frame: &'a [u8], event: &mut Event) -> Result<Option<Record<'a>>, Malformed> {
        let start = self.at;
        if start == frame.len() {
            return Ok(None);
        }
        let mut cursor = Cursor { bytes: frame, at: start };
        let record = self.record(&mut cursor, event).ok_or(Malformed { at: start })?;
        self.at = cursor.at;
        Ok(Some(record))
    }

    #[inline(always)]
    fn record<'a>(&mut self, cursor: &mut Cursor<'a>, event: &mut Event) -> Option<Record<'a>> {
        let first = cursor.byte()?;
        match first & what::MASK {
            what::NOTE if first == what::NOTE => Some(Record::Note(cursor.counted()?)),
            what::VITAL if first == what::VITAL => {
                Some(Record::Vital { kind: cursor.byte()?, bytes: cursor.counted()? })
            }
            what::NOTE | what::VITAL => None,
            _ => self.page(first, cursor, event).map(|()| Record::Page),
        }
    }

    #[inline(always)]
    fn page(&mut self, first: u8, cursor: &mut Cursor<'_>, event: &mut Event) -> Option<()> {
        let context = &mut self.context;
        let second = cursor.byte()?;
        let number = cursor.byte()?;
        if second & !flag::ALL != 0 {
            return None;
        }
        if first & flag::CPU != 0 {
            context.cpu = u16::try_from(cursor.varint()?).ok()?;
        }
        let mut time_ns = context.time_ns;
        let cpu = context.cpu;
        let last = context.last(cpu);
        if first & flag::TASK != 0 {
            last.tgid = u32::try_from(cursor.varint()?).ok()?;
            last.tid = u32::try_from(cursor.varint()?).ok()?;
        }
        if first & flag::SEQ != 0 {
            cursor.step(&mut last.seq)?;
        }
        cursor.step(&mut time_ns)?;
        if first & flag::TDR != 0 {
            cursor.step(&mut last.tdr)?;
        }
        if second & flag::PFN != 0 {
            cursor.step(&mut last.pfn)?;
        }
        if second & flag::GFN != 0 {
            cursor.step(&mut last.gfn)?;
        }
        let mut header = Header {
            time_ns,
            seq: last.seq,
            tgid: last.tgid,
            cpu,
            kind: Kind::Frame as u8,
            version: VERSION,
        };
        last.seq = last.seq.wrapping_add(1);
        let tid = last.tid;
        let tdr = if second & flag::NO_TDR != 0 { PFN_UNKNOWN } else { last.tdr };
        let pfn = if second & flag::NO_PFN != 0 { PFN_UNKNOWN } else { last.pfn };
        let gfn = if second & flag::NO_GFN != 0 { 0 } else { last.gfn };
        context.time_ns = time_ns;
        if first & what::MASK == what::FRAME {
            *event = Event::Frame(Frame { header, pfn, tid, hook: number, zero: [0; 3] });
            return Some(());
        }
        let (mut level, mut hkid) = (0, 0);
        if second & flag::LEVEL != 0 {
            level = cursor.byte()?;
            hkid = u16::try_from(cursor.varint()?).ok()?;
        }
        let [mut status, mut ext_err1, mut ext_err2] = [0; 3];
        header.kind = Kind::SeamcallOk as u8;
        if first & flag::STATUS != 0 {
            header.kind = Kind::SeamcallErr as u8;
            status = cursor.varint()?;
            ext_err1 = cursor.varint()?;
            ext_err2 = cursor.varint()?;
        }
        let took_ns = if first & flag::TOOK != 0 { u32::try_from(cursor.varint()?).ok()? } else { 0 };
        let call = SeamcallOk { header, tdr, pfn, gfn, leaf: number, level, hkid, tid, took_ns, zero: 0 };
        *event = Event::Call(SeamcallErr { call, status, ext_err1, ext_err2 });
        Some(())
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline(always)]
    fn varint(&mut self) -> Option<u64> {
        let byte = self.byte()?;
        if byte < 0x80 { Some(u64::from(byte)) } else { self.long_varint(u64::from(byte & 0x7f)) }
    }

    #[inline]
    fn long_varint(&mut self, mut value: u64) -> Option<u64> {
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[inline(always)]
    fn step(&mut self, value: &mut u64) -> Option<()> {
        *value = value.wrapping_add(unzigzag(self.varint()?));
        Some(())
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }
}
