//! The SEAMCALL leaves that KVM uses, by their numbers and names.

/// A host-side (`TDH.*`) leaf function of the TDX module.
///
/// Numbers: TDX Module ABI specification, "Host-Side (SEAMCALL) Interface Functions"; the same are in Linux'
/// `arch/x86/virt/vmx/tdx/tdx.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum Leaf {
    VpEnter = 0,
    MngAddcx = 1,
    MemPageAdd = 2,
    MemSeptAdd = 3,
    VpAddcx = 4,
    MemPageAug = 6,
    MemRangeBlock = 7,
    MngKeyConfig = 8,
    MngCreate = 9,
    VpCreate = 10,
    MngRd = 11,
    MrExtend = 16,
    MrFinalize = 17,
    VpFlush = 18,
    MngVpflushdone = 19,
    MngKeyFreeid = 20,
    MngInit = 21,
    VpInit = 22,
    VpRd = 26,
    PhymemPageReclaim = 28,
    MemPageRemove = 29,
    MemTrack = 38,
    PhymemCacheWb = 40,
    PhymemPageWbinvd = 41,
    VpWr = 43,
}

impl Leaf {
    /// Every leaf named here, in the order of the numbers.
    pub const ALL: [Self; 25] = [
        Self::VpEnter,
        Self::MngAddcx,
        Self::MemPageAdd,
        Self::MemSeptAdd,
        Self::VpAddcx,
        Self::MemPageAug,
        Self::MemRangeBlock,
        Self::MngKeyConfig,
        Self::MngCreate,
        Self::VpCreate,
        Self::MngRd,
        Self::MrExtend,
        Self::MrFinalize,
        Self::VpFlush,
        Self::MngVpflushdone,
        Self::MngKeyFreeid,
        Self::MngInit,
        Self::VpInit,
        Self::VpRd,
        Self::PhymemPageReclaim,
        Self::MemPageRemove,
        Self::MemTrack,
        Self::PhymemCacheWb,
        Self::PhymemPageWbinvd,
        Self::VpWr,
    ];

    /// The leaf with this number, if KVM uses it.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|leaf| *leaf as u64 == number)
    }

    /// The specification's name, e.g. `TDH.MEM.PAGE.REMOVE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VpEnter => "TDH.VP.ENTER",
            Self::MngAddcx => "TDH.MNG.ADDCX",
            Self::MemPageAdd => "TDH.MEM.PAGE.ADD",
            Self::MemSeptAdd => "TDH.MEM.SEPT.ADD",
            Self::VpAddcx => "TDH.VP.ADDCX",
            Self::MemPageAug => "TDH.MEM.PAGE.AUG",
            Self::MemRangeBlock => "TDH.MEM.RANGE.BLOCK",
            Self::MngKeyConfig => "TDH.MNG.KEY.CONFIG",
            Self::MngCreate => "TDH.MNG.CREATE",
            Self::VpCreate => "TDH.VP.CREATE",
            Self::MngRd => "TDH.MNG.RD",
            Self::MrExtend => "TDH.MR.EXTEND",
            Self::MrFinalize => "TDH.MR.FINALIZE",
            Self::VpFlush => "TDH.VP.FLUSH",
            Self::MngVpflushdone => "TDH.MNG.VPFLUSHDONE",
            Self::MngKeyFreeid => "TDH.MNG.KEY.FREEID",
            Self::MngInit => "TDH.MNG.INIT",
            Self::VpInit => "TDH.VP.INIT",
            Self::VpRd => "TDH.VP.RD",
            Self::PhymemPageReclaim => "TDH.PHYMEM.PAGE.RECLAIM",
            Self::MemPageRemove => "TDH.MEM.PAGE.REMOVE",
            Self::MemTrack => "TDH.MEM.TRACK",
            Self::PhymemCacheWb => "TDH.PHYMEM.CACHE.WB",
            Self::PhymemPageWbinvd => "TDH.PHYMEM.PAGE.WBINVD",
            Self::VpWr => "TDH.VP.WR",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_found_again() {
        for leaf in Leaf::ALL {
            assert_eq!(Leaf::from_number(leaf as u64), Some(leaf));
        }
        assert!(Leaf::ALL.windows(2).all(|pair| (pair[0] as u8) < pair[1] as u8));
        assert_eq!(Leaf::from_number(5), None);
    }
}
