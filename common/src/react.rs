//! Reactions that the programs in the kernel take themselves, at the moment in which they find a violation: from rules
//! that userspace compiled beforehand, and into records that userspace reads afterwards.
//!
//! A suspect verdict is never reacted to. What is kept here is state, not events: it is there for the next agent when one
//! dies.

use crate::{Status, Violation};

/// Rules that the programs can follow at a time.
pub const QUICK_RULES: u32 = 16;

/// TDs that can be held at a time: as many as can be tracked.
pub const MAX_HELD: u32 = crate::config::MAX_TDS;

/// [`QuickRule::does`]: the TD's guest_memfd give back nothing more by fallocate.
pub const HOLD: u64 = 1;
/// [`QuickRule::does`]: the host goes down.
pub const PANIC: u64 = 1 << 1;

/// A rule of a policy, as far as the kernel side follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct QuickRule {
    /// Bits of the violations that it is for, by their numbers.
    pub violations: u64,
    /// Bits of the SEAMCALL leaves that it is for, by their numbers: which failed. 0 is any, or none.
    pub leaves: u64,
    /// Bits of [`HOLD`] and [`PANIC`]; 0: there is no rule.
    pub does: u64,
    /// The errno of [`HOLD`], positive.
    pub errno: u64,
    /// How often it may still be followed. Userspace refills it as the policy's limits allow.
    pub left: u64,
    /// Status that the SEAMCALL must have failed with, without operand and details 2 (bits 31:0); 0 is any.
    pub status: u64,
    /// 1: only for TDs of which userspace has said so, in [`TdRules`].
    pub chosen: u64,
}

impl QuickRule {
    /// Whether it is for this violation: `leaf` and `status` are of the SEAMCALL that failed.
    #[inline(always)]
    pub const fn matches(&self, violation: Violation, leaf: u8, status: Status) -> bool {
        self.violations & 1 << violation as u64 != 0
            && (self.leaves == 0 || leaf < 64 && self.leaves & 1 << leaf != 0)
            && (self.status == 0 || self.status == status.0 & !0xffff_ffff)
    }
}

/// Bits of the rules that a TD is chosen for, by the rules' places. By the TD's number.
pub type TdRules = u64;

/// A TD that is held. By its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Held {
    /// Since when, in ns of CLOCK_MONOTONIC.
    pub since_ns: u64,
    /// Guest frames that were lent to it then.
    pub frames: u64,
    /// What fallocate on its guest_memfd answers, positive; 0: it is not held any more.
    pub errno: u64,
    /// How often it answered that.
    pub refused: u64,
    /// When it did so last; 0: never.
    pub refused_ns: u64,
    /// The violation, by its number.
    pub violation: u32,
    /// Place of the rule that was followed; [`BY_AGENT`]: userspace held it.
    pub rule: u32,
}

/// [`Held::rule`]: no rule of the kernel side's.
pub const BY_AGENT: u32 = u32::MAX;

/// Number of the helper that stands, in the programs, for the kfunc `crash_kexec`: no kernel has it.
pub const CRASH_KEXEC: usize = 0x7eed;

/// How a [`CrashNote`] begins, so that it is found in a dump of memory.
pub const CRASH_MAGIC: [u8; 16] = *b"septwatch-panic\n";

/// Why the programs bring the host down. In the memory of the crashed kernel, it is found by its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CrashNote {
    /// [`CRASH_MAGIC`]
    pub magic: [u8; 16],
    /// When it was decided, in ns of CLOCK_MONOTONIC; 0: it was not.
    pub wanted_ns: u64,
    /// The frame; all ones where it is not known.
    pub pfn: u64,
    /// The guest frame.
    pub gfn: u64,
    /// The TD's number.
    pub td: u64,
    /// Status of the SEAMCALL that failed.
    pub status: u64,
    /// Its leaf.
    pub leaf: u32,
    /// The violation, by its number.
    pub violation: u32,
    /// Place of the rule.
    pub rule: u32,
    /// Keeps the layout free of padding.
    pub zero: u32,
    /// [`Self::sum`], by which a note is told from a program that knows how one begins.
    pub check: u64,
}

impl CrashNote {
    /// Nothing was decided.
    pub const NONE: Self = Self {
        magic: [0; 16],
        wanted_ns: 0,
        pfn: 0,
        gfn: 0,
        td: 0,
        status: 0,
        leaf: 0,
        violation: 0,
        rule: 0,
        zero: 0,
        check: 0,
    };

    /// Of what the note says: its words from the time on, exclusive or.
    #[inline(always)]
    pub const fn sum(&self) -> u64 {
        let numbers =
            self.leaf as u64 ^ (self.violation as u64) << 32 ^ self.rule as u64 ^ (self.zero as u64) << 32;
        self.wanted_ns ^ self.pfn ^ self.gfn ^ self.td ^ self.status ^ numbers
    }
}

/// New VMs are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cordon {
    /// What KVM_CREATE_VM answers, positive; 0: new VMs are welcome. Userspace writes it.
    pub errno: u64,
    /// 1: VMs of every type, not only TDs.
    pub every_type: u64,
}

/// What came of a [`Cordon`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cordoned {
    /// VMs that were refused.
    pub refused: u64,
    /// When the last of them was, in ns of CLOCK_MONOTONIC.
    pub refused_ns: u64,
    /// The process that asked for it.
    pub tgid: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_for_what_it_names() {
        let any =
            QuickRule { violations: 1 << Violation::ZapFailed as u64, does: HOLD, ..Default::default() };
        let busy = Status(0x8000_0200_0000_0092);
        assert!(any.matches(Violation::ZapFailed, 29, busy));
        assert!(any.matches(Violation::ZapFailed, 0xff, Status(0)), "no SEAMCALL is a step as any");
        assert!(!any.matches(Violation::MapFailed, 29, busy));
        let remove = QuickRule { leaves: 1 << 29, ..any };
        assert!(remove.matches(Violation::ZapFailed, 29, busy));
        assert!(!remove.matches(Violation::ZapFailed, 7, busy));
        assert!(!remove.matches(Violation::ZapFailed, 0xff, busy));
        let status = QuickRule { status: 0x8000_0200_0000_0000, ..any };
        assert!(status.matches(Violation::ZapFailed, 29, busy));
        assert!(!status.matches(Violation::ZapFailed, 29, Status(0xc000_0b0d_0000_0000)));
    }
}
