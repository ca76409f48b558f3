//! What the ledger can find wrong, and how sure it is.

/// A violation, by the name that code, CLI and metrics share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Violation {
    /// The allocator received a frame that a TD still maps.
    FreedWhileMapped = 0,
    /// The allocator received a frame whose mapping was blocked, but never removed.
    FreedWhileBlocked = 1,
    /// The allocator received a removed frame whose cache lines were not written back.
    FreedUnflushed = 2,
    /// The allocator received an S-EPT or control page that was never reclaimed.
    FreedWhileOwned = 3,
    /// The allocator handed out again a frame that a TD still maps or owns.
    ReusedWhileMapped = 4,
    /// A step of a zap failed, and KVM gives the zap up there.
    ZapFailed = 5,
    /// The TDX module refused to map a frame.
    MapFailed = 6,
    /// One frame, two guest frames or two TDs.
    DoubleMap = 7,
    /// A SEAMCALL succeeded that the order of things forbids, such as REMOVE without BLOCK and TRACK.
    OutOfOrder = 8,
    /// A TD ended, and pages, or its HKID, did not come back.
    TeardownLeak = 9,
    /// The host touched a frame that a TD maps.
    HostAccessWhileMapped = 10,
    /// Memory failure struck a frame that a TD maps.
    PoisonedWhileMapped = 11,
    /// A frame that a TD maps was moved.
    MigratedWhileMapped = 12,
    /// KVM declared the VM bugged.
    VmBugged = 13,
}

impl Violation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::FreedWhileMapped,
        Self::FreedWhileBlocked,
        Self::FreedUnflushed,
        Self::FreedWhileOwned,
        Self::ReusedWhileMapped,
        Self::ZapFailed,
        Self::MapFailed,
        Self::DoubleMap,
        Self::OutOfOrder,
        Self::TeardownLeak,
        Self::HostAccessWhileMapped,
        Self::PoisonedWhileMapped,
        Self::MigratedWhileMapped,
        Self::VmBugged,
    ];

    /// From its number on the wire.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }

    /// The name, e.g. `freed-while-mapped`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FreedWhileMapped => "freed-while-mapped",
            Self::FreedWhileBlocked => "freed-while-blocked",
            Self::FreedUnflushed => "freed-unflushed",
            Self::FreedWhileOwned => "freed-while-owned",
            Self::ReusedWhileMapped => "reused-while-mapped",
            Self::ZapFailed => "zap-failed",
            Self::MapFailed => "map-failed",
            Self::DoubleMap => "double-map",
            Self::OutOfOrder => "out-of-order",
            Self::TeardownLeak => "teardown-leak",
            Self::HostAccessWhileMapped => "host-access-while-mapped",
            Self::PoisonedWhileMapped => "poisoned-while-mapped",
            Self::MigratedWhileMapped => "migrated-while-mapped",
            Self::VmBugged => "vm-bugged",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|violation| violation.name() == name)
    }
}

/// Why a verdict is *suspect* instead of *certain*: a set of reasons, empty when certain.
///
/// A suspect verdict never triggers a destructive reaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Suspect(pub u32);

impl Suspect {
    /// The TD ran before the first hook was attached: pages lent before are not in the ledger.
    pub const LATE: Self = Self(1);
    /// Frames of the TD could not be entered: the ledger is at its limit, or memory was short.
    pub const OUTSIDE: Self = Self(1 << 1);
    /// A hook did not run, because it was running on that CPU already (the kernel's recursion guard).
    pub const MISSED: Self = Self(1 << 2);
    /// The table of zaps under way was full: steps of some zap are unknown.
    pub const ZAPS_FULL: Self = Self(1 << 3);
    /// The table of TDs was full: some TD is not tracked.
    pub const TDS_FULL: Self = Self(1 << 4);
    /// What was lent to the TD before is being taken over, from KVM's mirror page table, and that is not complete.
    pub const WALK: Self = Self(1 << 5);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::LATE, "td-began-before-septwatch"),
        (Self::OUTSIDE, "frames-outside-the-ledger"),
        (Self::MISSED, "hook-missed-an-event"),
        (Self::ZAPS_FULL, "zap-table-was-full"),
        (Self::TDS_FULL, "td-table-was-full"),
        (Self::WALK, "resynchronisation-not-complete"),
    ];

    /// Whether there is no reason for doubt.
    pub const fn is_certain(self) -> bool {
        self.0 == 0
    }

    /// Those of these that the other set has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether one of these reasons is among them.
    pub const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    /// Both sets of reasons together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names of the reasons.
    pub fn reasons(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(bit, _)| self.0 & bit.0 != 0).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for (number, violation) in Violation::ALL.into_iter().enumerate() {
            assert_eq!(violation as usize, number);
            assert_eq!(Violation::from_number(number as u8), Some(violation));
            assert_eq!(Violation::from_name(violation.name()), Some(violation));
        }
        assert_eq!(Violation::from_number(Violation::ALL.len() as u8), None);
        assert_eq!(Violation::from_name("freed"), None);
    }

    #[test]
    fn reasons_are_named() {
        assert!(Suspect::default().is_certain());
        let both = Suspect::LATE.and(Suspect::MISSED);
        assert!(both.reasons().eq(["td-began-before-septwatch", "hook-missed-an-event"]));
    }
}
