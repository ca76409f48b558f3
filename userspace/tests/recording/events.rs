//! Events, random and not.

use proptest::prelude::*;
use septwatch::source::event::Event;
use septwatch_common::wire::{
    Frame, Header, Kind, SeamcallErr, SeamcallOk, TdLife, VERSION, ViolationEvent, VmLife,
};
use zerocopy::FromBytes as _;

pub fn head(time_ns: u64, seq: u64, cpu: u16, kind: Kind) -> Header {
    Header { time_ns, seq, tgid: 1, cpu, kind: kind as u8, version: VERSION }
}

/// A TDH.MEM.PAGE.AUG that succeeded.
pub fn call(time_ns: u64, seq: u64) -> Event {
    let header = head(time_ns, seq, 0, Kind::SeamcallOk);
    let (tdr, pfn, gfn) = (0x1000, 0x20_0000 + seq, 0x800 + seq);
    let call = SeamcallOk { header, tdr, pfn, gfn, leaf: 6, level: 0, hkid: 0, tid: 2, took_ns: 0, zero: 0 };
    Event::Call(SeamcallErr { call, status: 0, ext_err1: 0, ext_err2: 0 })
}

/// A number as events have them: often small, often all ones, sometimes anything.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0..200_u64, 0..1_u64 << 40, any::<u64>()]
}

fn header(kind: Kind) -> impl Strategy<Value = Header> {
    let cpu = prop_oneof![0..4_u16, any::<u16>()];
    (number(), number(), any::<u32>(), cpu).prop_map(move |(time_ns, seq, tgid, cpu)| Header {
        time_ns,
        seq,
        tgid,
        cpu,
        kind: kind as u8,
        version: VERSION,
    })
}

fn any_call() -> impl Strategy<Value = Event> {
    let status = prop_oneof![Just(0), number()];
    let names = (number(), number(), number());
    let small = (any::<u8>(), any::<u8>(), any::<u16>(), any::<u32>(), any::<u32>());
    (header(Kind::SeamcallOk), names, small, status, number(), number()).prop_map(
        |(mut header, (tdr, pfn, gfn), (leaf, level, hkid, tid, took_ns), status, err1, err2)| {
            let failed = status != 0;
            if failed {
                header.kind = Kind::SeamcallErr as u8;
            }
            let call = SeamcallOk { header, tdr, pfn, gfn, leaf, level, hkid, tid, took_ns, zero: 0 };
            let [ext_err1, ext_err2] = if failed { [err1, err2] } else { [0; 2] };
            Event::Call(SeamcallErr { call, status, ext_err1, ext_err2 })
        },
    )
}

fn any_frame() -> impl Strategy<Value = Event> {
    (header(Kind::Frame), number(), any::<u32>(), any::<u8>())
        .prop_map(|(header, pfn, tid, hook)| Event::Frame(Frame { header, pfn, tid, hook, zero: [0; 3] }))
}

/// A record of random bytes behind a header.
fn any_vital() -> impl Strategy<Value = Event> {
    let bytes = prop::collection::vec(any::<u8>(), size_of::<ViolationEvent>());
    (0..3_u8, header(Kind::TdLife), bytes).prop_map(|(which, mut header, bytes)| match which {
        0 => {
            let (mut life, _) = TdLife::read_from_prefix(&bytes).unwrap();
            life.header = header;
            Event::Life(life)
        }
        1 => {
            header.kind = Kind::VmLife as u8;
            let (mut vm, _) = VmLife::read_from_prefix(&bytes).unwrap();
            vm.header = header;
            Event::Vm(vm)
        }
        _ => {
            header.kind = Kind::Violation as u8;
            let mut violation = ViolationEvent::read_from_bytes(&bytes).unwrap();
            violation.header = header;
            Event::Violation(Box::new(violation))
        }
    })
}

/// Any event.
pub fn event() -> impl Strategy<Value = Event> {
    prop_oneof![6 => any_call(), 2 => any_frame(), 1 => any_vital()]
}

/// Events that follow each other as real ones do: numbers in order, names that repeat.
pub fn run() -> impl Strategy<Value = Vec<Event>> {
    let step = (any_call(), 0..3_u16, 0..5_000_u64, 0..3_u8, 0..4_u64);
    prop::collection::vec(step, 1..200).prop_map(|steps| {
        let mut time_ns = 1 << 40;
        let mut next = [0; 3];
        let mut last = (0x1000, 0x20_0000, 0x800);
        steps
            .into_iter()
            .map(|(event, cpu, later, same, more)| {
                let Event::Call(mut event) = event else { unreachable!("a call") };
                time_ns += later;
                let seq = &mut next[usize::from(cpu)];
                let call = &mut event.call;
                (call.header.time_ns, call.header.cpu, call.header.seq) = (time_ns, cpu, *seq);
                // Now and then some are lost.
                *seq += if more == 0 { 7 } else { 1 };
                match same {
                    0 => (call.tdr, call.pfn, call.gfn) = last,
                    1 => (call.tdr, call.pfn, call.gfn) = (last.0, last.1 + 1, last.2 + 1),
                    _ => {}
                }
                last = (call.tdr, call.pfn, call.gfn);
                if last.1 == u64::MAX || last.2 == u64::MAX {
                    last = (0x1000, 0x20_0000, 0x800);
                }
                Event::Call(event)
            })
            .collect()
    })
}
