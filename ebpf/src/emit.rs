//! Records on their way to userspace: numbered per CPU before the ring is asked, so that
//! produced = received + lost holds exactly.

use core::{ffi::c_void, hint::black_box, ptr};

use aya_ebpf::{
    bindings::{BPF_F_USER_STACK, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, generated::bpf_get_stack},
};
use septwatch_common::{
    Leaf, Status, Td, Violation,
    config::{Control, Produced},
    kvm::VmStage,
    tracker::{Call, Finding},
    wire::{
        Frame, Header, Hook, KERNEL_STACK, Kind, SeamcallErr, SeamcallOk, TdLife, USER_STACK, VERSION,
        ViolationEvent, VmLife,
    },
};

use crate::{
    atomic,
    maps::{LET_GO, PAGES, TDS, VITAL, control, counters},
    react,
    task::{self, Task},
};

#[inline(always)]
fn header(kind: Kind, seq: u64, task: Task, now_ns: u64) -> Header {
    // SAFETY: the helper has no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u16;
    Header { time_ns: now_ns, seq, tgid: task.tgid, cpu, kind: kind as u8, version: VERSION }
}

#[inline(always)]
fn number(stream: *mut Produced) -> u64 {
    // SAFETY: `stream` points into this CPU's counters. Atomic, because an interrupt's program may come in between.
    unsafe { atomic::fetch_add(&raw mut (*stream).produced, 1) }
}

#[inline(always)]
fn lost(stream: *mut Produced) {
    // SAFETY: as in `number`.
    unsafe { atomic::fetch_add(&raw mut (*stream).lost, 1) };
}

/// Whether page records are wanted.
#[inline(always)]
fn pages_wanted(control: *const Control) -> bool {
    // SAFETY: points into a map value; volatile, because userspace writes it.
    unsafe { (&raw const (*control).record_pages).read_volatile() != 0 }
}

/// The same of SEAMCALLs; `None` as long as not every hook is attached.
#[inline(always)]
pub fn seamcalls_wanted() -> Option<bool> {
    let control = control()?;
    // SAFETY: as above.
    let begun = unsafe { (&raw const (*control).begun).read_volatile() } != 0;
    if begun { Some(pages_wanted(control)) } else { None }
}

/// A TD reached a stage of its life.
#[inline(always)]
pub fn td_life(td: u16, record: &Td, now_ns: u64) {
    life(td, record, now_ns, false);
}

/// A TD was found, or is seen in another light: by somebody who looks at it, so that the running task is not its own.
#[inline(always)]
pub fn td_found(td: u16, record: &Td, now_ns: u64) {
    life(td, record, now_ns, true);
}

#[inline(always)]
fn life(td: u16, record: &Td, now_ns: u64, found: bool) {
    let Some(counters) = counters() else { return };
    // SAFETY: points into this CPU's counters.
    let stream = unsafe { &raw mut (*counters).vital };
    let seq = number(stream);
    let Some(mut entry) = VITAL.reserve_untyped::<TdLife>(0) else { return lost(stream) };
    let task = if found { Task { tgid: record.tgid, tid: record.tgid } } else { Task::current() };
    let event = entry.as_mut_ptr();
    // SAFETY: `event` points to the reserved record; every byte of it is written before it is submitted.
    unsafe {
        ptr::write_bytes(event, 0, 1);
        (*event).header = header(Kind::TdLife, seq, task, now_ns);
        (*event).tdr = record.tdr;
        (*event).cgroup = if found { record.cgroup } else { task::cgroup() };
        (*event).lent = record.lent();
        (*event).id = record.id;
        (*event).tid = task.tid;
        (*event).suspect = record.suspect.0;
        (*event).td = td;
        (*event).hkid = record.hkid;
        (*event).life = record.life;
        if found {
            (*event).comm = record.comm;
        } else {
            task::comm(&raw mut (*event).comm);
        }
    }
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
}

/// A VM of a TD reached a stage that SEAMCALLs do not tell.
#[inline(always)]
pub fn vm_life(record: &Td, stage: VmStage, now_ns: u64) {
    let Some(counters) = counters() else { return };
    // SAFETY: points into this CPU's counters.
    let stream = unsafe { &raw mut (*counters).vital };
    let seq = number(stream);
    let Some(mut entry) = VITAL.reserve_untyped::<VmLife>(0) else { return lost(stream) };
    let task = Task::current();
    let event = entry.as_mut_ptr();
    // SAFETY: `event` points to the reserved record; every byte of it is written before it is submitted.
    unsafe {
        ptr::write_bytes(event, 0, 1);
        (*event).header = header(Kind::VmLife, seq, task, now_ns);
        (*event).tdr = record.tdr;
        (*event).bugged_ns = record.bugged_ns;
        (*event).lent = record.lent();
        (*event).id = record.id;
        (*event).tid = task.tid;
        (*event).stage = stage as u8;
        task::comm(&raw mut (*event).comm);
    }
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
}

/// A violation, with the stacks of the running task. What is to be done at once is done before anything is told: whether
/// there is room for a record or not.
#[inline(always)]
pub fn violation(ctx: *mut c_void, hook: u8, finding: &Finding, now_ns: u64) {
    react::react(finding, now_ns);
    let Some(counters) = counters() else { return };
    // The verifier cannot know that the number is below 14, and the compiler does: black_box keeps the comparison.
    let number_of_it = black_box(finding.violation as usize);
    // SAFETY: points into this CPU's counters.
    let stream = unsafe {
        if number_of_it < Violation::ALL.len() {
            let count = (&raw mut (*counters).violations).cast::<u64>().add(number_of_it);
            atomic::fetch_add(count, 1);
        }
        &raw mut (*counters).vital
    };
    let seq = number(stream);
    let Some(mut entry) = VITAL.reserve_untyped::<ViolationEvent>(0) else { return lost(stream) };
    let task = Task::current();
    let event = entry.as_mut_ptr();
    // SAFETY: `event` points to the reserved record; every byte of it is written before it is submitted.
    unsafe {
        ptr::write_bytes(event, 0, 1);
        (*event).header = header(Kind::Violation, seq, task, now_ns);
        (*event).pfn = finding.pfn;
        (*event).gfn = finding.gfn;
        (*event).line = finding.line.0;
        (*event).zap = finding.zap;
        (*event).released_ns = finding.released_ns;
        (*event).invalidation_ns = finding.invalidation_ns;
        // Of the frames of this violation, if it is about one that left a guest_memfd.
        if let Some(let_go) = LET_GO.get(finding.pfn) {
            (*event).let_go = *let_go;
        }
        (*event).frames = finding.frames;
        if let Some(record) = TDS.get(u32::from(finding.td)) {
            (*event).tdr = record.tdr;
            (*event).td_id = record.id;
        }
        (*event).cgroup = task::cgroup();
        (*event).tid = task.tid;
        (*event).suspect = finding.suspect.0;
        (*event).td = finding.td;
        (*event).other = finding.other;
        (*event).violation = finding.violation as u8;
        (*event).hook = hook;
        task::comm(&raw mut (*event).comm);
        let kernel = (&raw mut (*event).kernel_stack).cast::<c_void>();
        let bytes = bpf_get_stack(ctx, kernel, (KERNEL_STACK * 8) as u32, 0);
        (*event).kernel_frames = if bytes > 0 { (bytes / 8) as u8 } else { 0 };
        let user = (&raw mut (*event).user_stack).cast::<c_void>();
        let bytes = bpf_get_stack(ctx, user, (USER_STACK * 8) as u32, u64::from(BPF_F_USER_STACK));
        (*event).user_frames = if bytes > 0 { (bytes / 8) as u8 } else { 0 };
    }
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
}

/// A SEAMCALL returned, and somebody records.
#[inline(always)]
pub fn seamcall(leaf: Leaf, call: &Call, took_ns: u32) {
    let Some(counters) = counters() else { return };
    // SAFETY: points into this CPU's counters.
    let stream = unsafe { &raw mut (*counters).pages };
    let seq = number(stream);
    let task = Task::current();
    let answer = &call.answer;
    let Status(status) = answer.status;
    let ok = |kind| SeamcallOk {
        header: header(kind, seq, task, answer.now_ns),
        tdr: if matches!(leaf, Leaf::VpAddcx) { call.tdvpr } else { call.tdr },
        pfn: if matches!(leaf, Leaf::VpCreate) { call.tdvpr } else { call.pfn },
        gfn: call.gfn,
        leaf: leaf as u8,
        level: call.level as u8,
        hkid: call.hkid,
        tid: task.tid,
        took_ns,
        zero: 0,
    };
    // Nobody waits for these: the reader comes by on a timer.
    let flags = u64::from(BPF_RB_NO_WAKEUP);
    if status == 0 {
        let Some(mut entry) = PAGES.reserve_untyped::<SeamcallOk>(0) else { return lost(stream) };
        entry.write(ok(Kind::SeamcallOk));
        entry.submit(flags);
    } else {
        let Some(mut entry) = PAGES.reserve_untyped::<SeamcallErr>(0) else { return lost(stream) };
        let (ext_err1, ext_err2) = (answer.ext_err1, answer.ext_err2);
        entry.write(SeamcallErr { call: ok(Kind::SeamcallErr), status, ext_err1, ext_err2 });
        entry.submit(flags);
    }
}

/// The allocator received, or handed out, a frame whose line was open, if anybody records.
#[inline(always)]
pub fn frame(hook: Hook, pfn: u64, now_ns: u64) {
    if !control().is_some_and(pages_wanted) {
        return;
    }
    let Some(counters) = counters() else { return };
    // SAFETY: points into this CPU's counters.
    let stream = unsafe { &raw mut (*counters).pages };
    let seq = number(stream);
    let Some(mut entry) = PAGES.reserve_untyped::<Frame>(0) else { return lost(stream) };
    let task = Task::current();
    let header = header(Kind::Frame, seq, task, now_ns);
    entry.write(Frame { header, pfn, tid: task.tid, hook: hook as u8, zero: [0; 3] });
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
