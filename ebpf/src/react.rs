//! Reactions that cannot wait for userspace: rules that it compiled beforehand are followed where the violation is found.

use core::ffi::c_void;

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_loop};
use septwatch_common::{
    Status, Violation,
    react::{CRASH_MAGIC, CrashNote, HOLD, Held, PANIC, QUICK_RULES, QuickRule},
    tracker::{Finding, Store as _},
};

use crate::{
    atomic,
    maps::{CRASH, HELD, QUICK, TD_RULES, control, shared},
    steps,
    store::Maps,
};

/// Follows the rules for a violation. A suspect verdict has none.
#[inline(always)]
pub fn react(finding: &Finding, now_ns: u64) {
    // SAFETY: points into a map value; volatile, because userspace writes it.
    let rules = control().map_or(0, |control| unsafe { (&raw const (*control).quick_rules).read_volatile() });
    if rules != 0 && finding.suspect.is_certain() {
        steps::follow_rules(finding, rules as u32, now_ns);
    }
}

/// What every rule is held against.
struct Found {
    violation: Violation,
    /// The SEAMCALL that failed; 0xff: none did.
    leaf: u8,
    status: u64,
    /// The TD's number; 0: it is not known.
    td: u64,
    /// Guest frames that are lent to it.
    frames: u64,
    /// Bits of the rules that it is chosen for.
    chosen: u64,
    pfn: u64,
    gfn: u64,
    now_ns: u64,
}

#[inline(always)]
pub fn follow(finding: &Finding, rules: u32, now_ns: u64) {
    let mut found = Found {
        violation: finding.violation,
        leaf: if finding.zap.has_failed() { finding.zap.failed_leaf } else { 0xff },
        status: finding.zap.failed_status,
        td: 0,
        frames: 0,
        chosen: 0,
        pfn: finding.pfn,
        gfn: finding.gfn,
        now_ns,
    };
    if let Some(record) = Maps.record(finding.td) {
        found.td = u64::from(record.id);
        found.frames = record.frames[0];
    }
    // SAFETY: the value is copied at once; entries are preallocated.
    found.chosen = unsafe { TD_RULES.get(found.td) }.copied().unwrap_or(0);
    let rules = if rules < QUICK_RULES { rules } else { QUICK_RULES };
    // SAFETY: `one` has the signature that the helper asks for, and `found` outlives the loop.
    unsafe { bpf_loop(rules, one as *mut c_void, (&raw mut found).cast(), 0) };
}

/// Callback of bpf_loop: one rule.
unsafe extern "C" fn one(place: u64, found: *mut c_void) -> i64 {
    // SAFETY: `follow` passes a `Found` that outlives the loop.
    let found = unsafe { &*found.cast::<Found>() };
    let Some(at) = QUICK.get_ptr_mut(place as u32) else { return 1 };
    // SAFETY: points into a map value. Userspace replaces whole rules; half of one and half of another would need two
    // changes of the policy within this moment.
    let rule = unsafe { *at };
    let is_chosen = rule.chosen == 0 || found.chosen & 1 << (place & 63) != 0;
    if !is_chosen || !rule.matches(found.violation, found.leaf, Status(found.status)) {
        return 0;
    }
    let holds = rule.does & HOLD != 0 && found.td != 0 && HELD.get_ptr(found.td).is_none();
    let panics = rule.does & PANIC != 0;
    // SAFETY: a member of the map value.
    if (holds || panics) && takes_one(unsafe { &raw mut (*at).left }) {
        if holds {
            hold(found, &rule, place as u32);
        }
        if panics {
            panic(found, place as u32);
        }
    }
    0
}

/// Takes one of what the policy's limits leave.
#[inline(always)]
fn takes_one(left: *mut u64) -> bool {
    // SAFETY: points into a map value.
    let there = unsafe { atomic::fetch_add(left, u64::MAX) };
    let has = there as i64 > 0;
    if !has {
        // SAFETY: as above.
        unsafe { atomic::fetch_add(left, 1) };
    }
    has
}

#[inline(always)]
fn hold(found: &Found, rule: &QuickRule, place: u32) {
    let held = Held {
        since_ns: found.now_ns,
        frames: found.frames,
        errno: rule.errno,
        refused: 0,
        refused_ns: 0,
        violation: found.violation as u32,
        rule: place,
    };
    // Before it is there for all to see: the LSM program looks here first.
    if let Some(shared) = shared() {
        // SAFETY: points into a map value; nobody writes anything else.
        unsafe { (&raw mut (*shared).holds).write_volatile(1) };
    }
    let _ = HELD.insert(found.td, held, u64::from(BPF_NOEXIST));
}

/// Says that the host is to go down. The programs of `crash` do it: they run after this one, at this very point.
#[inline(always)]
fn panic(found: &Found, place: u32) {
    let Some(note) = CRASH.get_ptr_mut(0) else { return };
    // SAFETY: points into a map value. The first violation counts; the time is written last.
    unsafe {
        if (&raw const (*note).wanted_ns).read_volatile() != 0 {
            return;
        }
        (*note).magic = CRASH_MAGIC;
        (*note).pfn = found.pfn;
        (*note).gfn = found.gfn;
        (*note).td = found.td;
        (*note).status = found.status;
        (*note).leaf = u32::from(found.leaf);
        (*note).violation = found.violation as u32;
        (*note).rule = place;
        (*note).check = CrashNote { wanted_ns: found.now_ns, ..*note }.sum();
        (&raw mut (*note).wanted_ns).write_volatile(found.now_ns);
    }
}
