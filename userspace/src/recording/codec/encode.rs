//! Writing records.

use septwatch_common::{
    wire::{Frame, Header, SeamcallErr},
    zap::PFN_UNKNOWN,
};
use zerocopy::IntoBytes as _;

use super::{Context, flag, what, zigzag};
use crate::source::event::Event;

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
