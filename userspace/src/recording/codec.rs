//! Records inside a frame: what changes from one to the next, and nothing else.
//!
//! Every record begins with a byte whose two lowest bits say what it is. A number that can be large is a LEB128 varint
//! (7 bits a byte, lowest first, the highest bit of a byte says that another follows); a difference is taken modulo
//! 2^64 and zigzag-coded first (0, -1, 1, -2, ... become 0, 1, 2, 3, ...), so that small steps in both directions stay
//! short. Both ends keep, for each CPU, what its last page record said; at the start of a frame all of it is 0.
//!
//! | what | bytes |
//! |---|---|
//! | note | `00`, varint length, JSON |
//! | vital record | `01`, kind, varint length, the record in the layout that the header names |
//! | SEAMCALL | flags with `2` in the lowest bits, more flags, leaf, then what the flags announce |
//! | frame | the same with `3` and the number of the hook |
//!
//! In this order, each only if its flag is set, but the time, which is always there: CPU; process and thread; steps of
//! the sequence number beyond the next one; time since the record before, whatever its CPU; TDR; pfn; gfn; level and
//! HKID; status, RCX and RDX; how long it took.

use septwatch_common::{
    wire::{Frame, Header, Kind, SeamcallErr, SeamcallOk, VERSION},
    zap::PFN_UNKNOWN,
};

use zerocopy::IntoBytes as _;

use crate::source::event::Event;

/// The two lowest bits of a record's first byte.
mod what {
    pub const MASK: u8 = 3;
    pub const NOTE: u8 = 0;
    pub const VITAL: u8 = 1;
    pub const CALL: u8 = 2;
    pub const FRAME: u8 = 3;
}

/// Flags of a page record: of its first byte, and of its second.
mod flag {
    /// Another CPU than the record before.
    pub const CPU: u8 = 1 << 2;
    /// Another task than this CPU's record before.
    pub const TASK: u8 = 1 << 3;
    /// Not the number that follows this CPU's record before.
    pub const SEQ: u8 = 1 << 4;
    /// Another TDR than this CPU's record before that named one.
    pub const TDR: u8 = 1 << 5;
    pub const STATUS: u8 = 1 << 6;
    pub const TOOK: u8 = 1 << 7;

    /// The call names no TD.
    pub const NO_TDR: u8 = 1;
    /// Another frame than this CPU's record before that named one.
    pub const PFN: u8 = 1 << 1;
    pub const NO_PFN: u8 = 1 << 2;
    /// Another guest frame than this CPU's record before that named one.
    pub const GFN: u8 = 1 << 3;
    /// Guest frame 0: the call names none.
    pub const NO_GFN: u8 = 1 << 4;
    /// Level or HKID is not 0.
    pub const LEVEL: u8 = 1 << 5;
    pub const ALL: u8 = (1 << 6) - 1;
}

/// What the last page record of a CPU said.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    seq: u64,
    tdr: u64,
    pfn: u64,
    gfn: u64,
    tgid: u32,
    tid: u32,
}

/// What both ends keep while a frame lasts.
#[derive(Debug, Default)]
struct Context {
    cpus: Vec<Last>,
    cpu: u16,
    time_ns: u64,
}

impl Context {
    fn last(&mut self, cpu: u16) -> &mut Last {
        let at = usize::from(cpu);
        if at >= self.cpus.len() {
            self.cpus.resize(at + 1, Last::default());
        }
        &mut self.cpus[at]
    }
}

const fn zigzag(step: u64) -> u64 {
    (step << 1) ^ ((step as i64 >> 63) as u64)
}

const fn unzigzag(coded: u64) -> u64 {
    (coded >> 1) ^ (coded & 1).wrapping_neg()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn step(out: &mut Vec<u8>, from: &mut u64, to: u64) {
    varint(out, zigzag(to.wrapping_sub(*from)));
    *from = to;
}

/// Writes the records of one frame.
#[derive(Debug, Default)]
pub struct Encoder {
    context: Context,
    bytes: Vec<u8>,
    records: u32,
}

impl Encoder {
    /// A note's JSON.
    pub fn note(&mut self, json: &[u8]) {
        self.records += 1;
        self.bytes.push(what::NOTE);
        varint(&mut self.bytes, json.len() as u64);
        self.bytes.extend_from_slice(json);
    }

    /// A vital record, as it is in memory.
    pub fn vital(&mut self, kind: u8, record: &[u8]) {
        self.records += 1;
        self.bytes.extend([what::VITAL, kind]);
        varint(&mut self.bytes, record.len() as u64);
        self.bytes.extend_from_slice(record);
    }

    /// An event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Call(call) => self.call(call),
            Event::Frame(frame) => self.frame(frame),
            Event::Life(life) => self.vital(life.header.kind, life.as_bytes()),
            Event::Vm(vm) => self.vital(vm.header.kind, vm.as_bytes()),
            Event::Violation(violation) => self.vital(violation.header.kind, violation.as_bytes()),
        }
    }

    /// A SEAMCALL.
    pub fn call(&mut self, event: &SeamcallErr) {
        let SeamcallErr { call, status, ext_err1, ext_err2 } = event;
        let fields = Fields {
            number: call.leaf,
            tid: call.tid,
            tdr: Some(call.tdr).filter(|tdr| *tdr != PFN_UNKNOWN),
            pfn: Some(call.pfn).filter(|pfn| *pfn != PFN_UNKNOWN),
            gfn: Some(call.gfn).filter(|gfn| *gfn != 0),
        };
        let mut first = what::CALL;
        let mut second = 0;
        let leveled = call.level != 0 || call.hkid != 0;
        let failed = *status != 0;
        first |= if failed { flag::STATUS } else { 0 };
        first |= if call.took_ns != 0 { flag::TOOK } else { 0 };
        second |= if leveled { flag::LEVEL } else { 0 };
        self.page(&call.header, fields, first, second);
        if leveled {
            self.bytes.push(call.level);
            varint(&mut self.bytes, u64::from(call.hkid));
        }
        if failed {
            for value in [*status, *ext_err1, *ext_err2] {
                varint(&mut self.bytes, value);
            }
        }
        if call.took_ns != 0 {
            varint(&mut self.bytes, u64::from(call.took_ns));
        }
    }

    /// A frame that the allocator received or handed out.
    pub fn frame(&mut self, event: &Frame) {
        let pfn = Some(event.pfn).filter(|pfn| *pfn != PFN_UNKNOWN);
        let fields = Fields { number: event.hook, tid: event.tid, tdr: None, pfn, gfn: None };
        self.page(&event.header, fields, what::FRAME, 0);
    }

    fn page(&mut self, header: &Header, fields: Fields, mut first: u8, mut second: u8) {
        self.records += 1;
        let Self { context, bytes: out, .. } = self;
        let other_cpu = context.cpu != header.cpu;
        let mut time_ns = context.time_ns;
        let last = context.last(header.cpu);
        let other_task = (last.tgid, last.tid) != (header.tgid, fields.tid);
        let jump = last.seq != header.seq;
        first |= if other_cpu { flag::CPU } else { 0 };
        first |= if other_task { flag::TASK } else { 0 };
        first |= if jump { flag::SEQ } else { 0 };
        first |= if fields.tdr.is_some_and(|tdr| tdr != last.tdr) { flag::TDR } else { 0 };
        second |= if fields.tdr.is_none() { flag::NO_TDR } else { 0 };
        second |= match fields.pfn {
            None => flag::NO_PFN,
            Some(pfn) if pfn != last.pfn => flag::PFN,
            Some(_) => 0,
        };
        second |= match fields.gfn {
            None => flag::NO_GFN,
            Some(gfn) if gfn != last.gfn => flag::GFN,
            Some(_) => 0,
        };
        out.extend([first, second, fields.number]);
        if other_cpu {
            varint(out, u64::from(header.cpu));
        }
        if other_task {
            varint(out, u64::from(header.tgid));
            varint(out, u64::from(fields.tid));
        }
        if jump {
            step(out, &mut last.seq, header.seq);
        }
        step(out, &mut time_ns, header.time_ns);
        if first & flag::TDR != 0 {
            step(out, &mut last.tdr, fields.tdr.unwrap_or(0));
        }
        if second & flag::PFN != 0 {
            step(out, &mut last.pfn, fields.pfn.unwrap_or(0));
        }
        if second & flag::GFN != 0 {
            step(out, &mut last.gfn, fields.gfn.unwrap_or(0));
        }
        (last.tgid, last.tid) = (header.tgid, fields.tid);
        last.seq = header.seq.wrapping_add(1);
        context.cpu = header.cpu;
        context.time_ns = time_ns;
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the frame, and begins the next. Bytes, and records in them.
    pub fn take(&mut self) -> (Vec<u8>, u32) {
        self.context.cpus.clear();
        self.context = Context { cpus: std::mem::take(&mut self.context.cpus), ..Context::default() };
        let next = Vec::with_capacity(self.bytes.capacity());
        (std::mem::replace(&mut self.bytes, next), std::mem::take(&mut self.records))
    }
}

/// What both kinds of page records name.
struct Fields {
    number: u8,
    tid: u32,
    tdr: Option<u64>,
    pfn: Option<u64>,
    gfn: Option<u64>,
}

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
