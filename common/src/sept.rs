//! S-EPT entries as the TDX module describes them: ext_err1 (RCX) and ext_err2 (RDX) of a `tdh_mem_*` call.
//!
//! The registers hold this only after some failures ([`meaningful_for`]). The leaves of the S-EPT set both to zero
//! before their first check, so other failures leave zeros; where the SEAMCALL never reached the module, they hold
//! the call's own operands. Layout: TDX module ABI specification, "Secure EPT Entry Information"; the same in
//! Intel's module source (`sept_manager.h`, `sept_entry_arch_info_t`).

use core::fmt;

use crate::{Level, Status, status::Class};

/// `TDX_TLB_TRACKING_NOT_DONE`, the one status of its class that the module returns without a description.
const TLB_TRACKING_NOT_DONE: u64 = 0xc000_0b08_0000_0000;

/// Can ext_err1 and ext_err2 describe an S-EPT entry after this status?
///
/// Yes after the statuses of class 0x0b but one, and after `TDX_OPERAND_BUSY` on RCX (the entry's own lock): the
/// places where the module calls `set_arch_septe_details_in_vmm_regs()`.
#[inline(always)]
pub const fn meaningful_for(status: Status) -> bool {
    let about_an_entry = status.class().0 == Class::GUEST_MEMORY.0;
    status.is_entry_busy() || (about_an_entry && status.without_operand().0 != TLB_TRACKING_NOT_DONE)
}

/// The entry that a failed call describes, if it describes one.
///
/// Both registers zero is no description: even a free entry has SVE set.
pub fn described(status: Status, ext_err1: u64, ext_err2: u64) -> Option<(Entry, LevelState)> {
    let present = meaningful_for(status) && (ext_err1 | ext_err2) != 0;
    present.then_some((Entry(ext_err1), LevelState(ext_err2)))
}

/// ext_err1: the entry. Bits the module hides are zero; a free entry shows as SVE alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Entry(pub u64);

impl Entry {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// Bits 2:0: read, write, execute.
    pub const fn rwx(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// Bit 7: the entry maps a page rather than a table.
    pub const fn is_leaf(self) -> bool {
        self.0 & (1 << 7) != 0
    }

    /// Bit 63: a guest access causes an EPT violation exit, not a #VE.
    pub const fn suppresses_ve(self) -> bool {
        self.0 >> 63 != 0
    }

    /// Bits 51:12, the frame number; of a leaf only, the module hides where its tables are.
    pub const fn pfn(self) -> Option<u64> {
        if self.is_leaf() { Some((self.0 & Self::ADDRESS) >> 12) } else { None }
    }
}

impl fmt::Display for Entry {
    /// `leaf, pfn 0x12345, rwx` or `no leaf, ---, SVE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pfn() {
            Some(pfn) => write!(f, "leaf, pfn 0x{pfn:x}, ")?,
            None => f.write_str("no leaf, ")?,
        }
        for (bit, letter) in ["r", "w", "x"].into_iter().enumerate() {
            f.write_str(if self.rwx() >> bit & 1 != 0 { letter } else { "-" })?;
        }
        f.write_str(if self.suppresses_ve() { ", SVE" } else { "" })
    }
}

/// ext_err2: where the entry is and in which state. The kernel's messages call it `level_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct LevelState(pub u64);

impl LevelState {
    /// Bits 2:0, in the module's numbering (0 is 4 KiB); `None` for numbers beyond the root.
    pub const fn level(self) -> Option<Level> {
        Level::from_tdx(self.0 & 7)
    }

    /// Bits 15:8.
    pub const fn state(self) -> EntryState {
        EntryState((self.0 >> 8) as u8)
    }

    /// Bits 17:16: 0 is the TD itself (L1), 1 to 3 its nested VMs (TD partitioning).
    pub const fn vm(self) -> u8 {
        (self.0 >> 16 & 3) as u8
    }
}

impl fmt::Display for LevelState {
    /// `4K, BLOCKED`; with `, L2 VM 1` for an entry of a nested VM.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level() {
            Some(level) => f.write_str(level.name())?,
            None => write!(f, "level {}", self.0 & 7)?,
        }
        write!(f, ", {}", self.state())?;
        if self.vm() != 0 {
            write!(f, ", L2 VM {}", self.vm())?;
        }
        Ok(())
    }
}

/// The state of an S-EPT entry, in the module's public encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryState(pub u8);

/// `public_state` of the tables `sept_special_flags_lookup` and `l2_sept_special_flags_lookup` in Intel's module
/// source, generation 2.0. Bit 7 is set for entries that point to a table (NL), bit 6 for those of an L2 VM.
/// 0 to 4 are also in KVM's posted `enum tdx_sept_entry_state`, which calls MAPPED `PRESENT`.
const STATES: [(u8, &str); 26] = [
    (0, "FREE"),
    (1, "BLOCKED"),
    (2, "PENDING"),
    (3, "PENDING_BLOCKED"),
    (4, "MAPPED"),
    (5, "REMOVED"),
    (8, "BLOCKEDW"),
    (9, "EXPORTED_BLOCKEDW"),
    (11, "EXPORTED_DIRTY"),
    (12, "EXPORTED_DIRTY_BLOCKEDW"),
    (16, "PENDING_BLOCKEDW"),
    (17, "PENDING_EXPORTED_BLOCKEDW"),
    (19, "PENDING_EXPORTED_DIRTY"),
    (20, "PENDING_EXPORTED_DIRTY_BLOCKEDW"),
    (32, "MMIO_MAPPED"),
    (33, "MMIO_BLOCKED"),
    (34, "MMIO_PENDING"),
    (64, "L2_FREE"),
    (65, "L2_BLOCKED"),
    (68, "L2_MAPPED"),
    (96, "L2_MMIO_MAPPED"),
    (97, "L2_MMIO_BLOCKED"),
    (129, "NL_BLOCKED"),
    (132, "NL_MAPPED"),
    (193, "L2_NL_BLOCKED"),
    (196, "L2_NL_MAPPED"),
];

impl EntryState {
    /// Maps nothing.
    pub const FREE: Self = Self(0);
    /// Mapped, but new translations are refused; what TDH.MEM.PAGE.REMOVE needs.
    pub const BLOCKED: Self = Self(1);
    /// Added by TDH.MEM.PAGE.AUG, not yet accepted by the guest.
    pub const PENDING: Self = Self(2);
    /// PENDING, then blocked.
    pub const PENDING_BLOCKED: Self = Self(3);
    /// In use by the guest.
    pub const MAPPED: Self = Self(4);

    /// The module's name for the state; `None` for an encoding that its tables do not have.
    pub fn name(self) -> Option<&'static str> {
        STATES.iter().find(|(state, _)| *state == self.0).map(|(_, name)| *name)
    }
}

impl fmt::Display for EntryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "state 0x{:02x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;
    use std::format;
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_blocked_leaf() {
        let entry = Entry(0x0000_0001_2345_60b7);
        assert_eq!(entry.pfn(), Some(0x12_3456));
        assert_eq!(entry.to_string(), "leaf, pfn 0x123456, rwx");
        let place = LevelState(0x0100);
        assert_eq!((place.level(), place.state(), place.vm()), (Some(Level::L4K), EntryState::BLOCKED, 0));
        assert_eq!(place.to_string(), "4K, BLOCKED");
    }

    #[test]
    fn a_free_entry_is_sve_alone() {
        assert_eq!(Entry(1 << 63).to_string(), "no leaf, ---, SVE");
        assert_eq!(Entry(1 << 63).pfn(), None);
        assert_eq!(LevelState(1).to_string(), "2M, FREE");
    }

    #[test]
    fn tables_and_nested_vms() {
        assert_eq!(Entry(7).to_string(), "no leaf, rwx");
        assert_eq!(LevelState(0x8401).to_string(), "2M, NL_MAPPED");
        assert_eq!(LevelState(0x1_4402).to_string(), "1G, L2_MAPPED, L2 VM 1");
        assert_eq!(LevelState(0x7f07).to_string(), "level 7, state 0x7f");
    }

    #[test]
    fn states_are_sorted_and_flagged() {
        assert!(STATES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (state, name) in STATES {
            assert_eq!(EntryState(state).name(), Some(name));
            assert_eq!(state & 0x80 != 0, name.contains("NL_"), "{name}");
            assert_eq!(state & 0x40 != 0, name.starts_with("L2_"), "{name}");
        }
    }

    #[test]
    fn described_only_after_statuses_about_an_entry() {
        let with = [
            "EPT_WALK_FAILED",
            "EPT_ENTRY_STATE_INCORRECT",
            "GPA_RANGE_NOT_BLOCKED",
            "GPA_RANGE_ALREADY_BLOCKED",
        ];
        let without = [
            "SUCCESS",
            "OPERAND_BUSY",
            "TLB_TRACKING_NOT_DONE",
            "PAGE_METADATA_INCORRECT",
            "OP_STATE_INCORRECT",
            "SEAMCALL_GP",
        ];
        for (names, expected) in [(&with[..], true), (&without[..], false)] {
            for name in names {
                assert_eq!(Status::from_name(name).map(meaningful_for), Some(expected), "{name}");
            }
        }
        assert!(meaningful_for(Status(0x8000_0200_0000_0001)), "the entry's own lock");
        assert!(!meaningful_for(Status(0x8000_0200_0000_0092)), "the tree's lock: no walk was made");
    }

    #[test]
    fn zeros_describe_nothing() {
        let status = Status(0xc000_0b0d_0000_0001);
        assert_eq!(described(status, 0, 0), None);
        assert_eq!(described(status, 1 << 63, 0), Some((Entry(1 << 63), LevelState(0))));
        assert_eq!(described(Status(0xc000_0300_0000_0008), 1 << 63, 0), None);
    }

    proptest! {
        #[test]
        fn any_word_can_be_shown(word: u64) {
            let shown = format!("{}; {}", Entry(word), LevelState(word));
            prop_assert!(shown.contains("; "));
        }
    }
}
