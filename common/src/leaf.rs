//! The SEAMCALL leaves, by their numbers and names: [`Leaf`] for those that Linux issues, [`name_of`] for all.

/// A host-side (`TDH.*`) leaf function of the TDX module.
///
/// Those that Linux 6.17 to 7.3 issues. Numbers: TDX Module ABI specification, "Host-Side (SEAMCALL) Interface
/// Functions"; the same are in Linux' `arch/x86/virt/vmx/tdx/tdx.h`.
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
    PhymemPageRdmd = 24,
    VpRd = 26,
    PhymemPageReclaim = 28,
    MemPageRemove = 29,
    SysKeyConfig = 31,
    SysInit = 33,
    SysRd = 34,
    SysLpInit = 35,
    SysTdmrInit = 36,
    MemTrack = 38,
    PhymemCacheWb = 40,
    PhymemPageWbinvd = 41,
    VpWr = 43,
    SysConfig = 45,
    SysShutdown = 52,
    SysUpdate = 53,
    SysDisable = 69,
}

impl Leaf {
    /// Every leaf named here, in the order of the numbers.
    pub const ALL: [Self; 35] = [
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
        Self::PhymemPageRdmd,
        Self::VpRd,
        Self::PhymemPageReclaim,
        Self::MemPageRemove,
        Self::SysKeyConfig,
        Self::SysInit,
        Self::SysRd,
        Self::SysLpInit,
        Self::SysTdmrInit,
        Self::MemTrack,
        Self::PhymemCacheWb,
        Self::PhymemPageWbinvd,
        Self::VpWr,
        Self::SysConfig,
        Self::SysShutdown,
        Self::SysUpdate,
        Self::SysDisable,
    ];

    /// The leaf with this number, if Linux issues it.
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
            Self::PhymemPageRdmd => "TDH.PHYMEM.PAGE.RDMD",
            Self::VpRd => "TDH.VP.RD",
            Self::PhymemPageReclaim => "TDH.PHYMEM.PAGE.RECLAIM",
            Self::MemPageRemove => "TDH.MEM.PAGE.REMOVE",
            Self::SysKeyConfig => "TDH.SYS.KEY.CONFIG",
            Self::SysInit => "TDH.SYS.INIT",
            Self::SysRd => "TDH.SYS.RD",
            Self::SysLpInit => "TDH.SYS.LP.INIT",
            Self::SysTdmrInit => "TDH.SYS.TDMR.INIT",
            Self::MemTrack => "TDH.MEM.TRACK",
            Self::PhymemCacheWb => "TDH.PHYMEM.CACHE.WB",
            Self::PhymemPageWbinvd => "TDH.PHYMEM.PAGE.WBINVD",
            Self::VpWr => "TDH.VP.WR",
            Self::SysConfig => "TDH.SYS.CONFIG",
            Self::SysShutdown => "TDH.SYS.SHUTDOWN",
            Self::SysUpdate => "TDH.SYS.UPDATE",
            Self::SysDisable => "TDH.SYS.DISABLE",
        }
    }

    /// Whether it is about a place in the guest's memory: its GPA operand means something.
    pub const fn names_gpa(self) -> bool {
        matches!(
            self,
            Self::MemPageAdd
                | Self::MemPageAug
                | Self::MemPageRemove
                | Self::MemRangeBlock
                | Self::MemSeptAdd
        )
    }

    /// The leaf with this name: the specification's (`TDH.MEM.TRACK`) or the kernel's (`TDH_MEM_TRACK`,
    /// `tdh_mem_track`), with or without the `TDH` prefix.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|leaf| same_name(leaf.name(), name))
    }
}

/// The number that RAX carries: bits 15:0; the version of the call is in bits 23:16, and bit 63 marks a call to the
/// P-SEAMLDR, whose numbers and statuses are its own.
pub const fn number_in(rax: u64) -> Option<u16> {
    if rax >> 63 == 0 { Some(rax as u16) } else { None }
}

/// The specification's name for the leaf with this number, whether Linux issues it or not.
pub fn name_of(number: u16) -> Option<&'static str> {
    let issued = Leaf::from_number(number.into()).map(Leaf::name);
    issued.or_else(|| NOT_ISSUED.iter().find(|(other, _)| *other == number).map(|(_, name)| *name))
}

/// The number of the leaf with this name, spelled as in [`Leaf::from_name`].
pub fn number_of(name: &str) -> Option<u16> {
    let issued = Leaf::from_name(name).map(|leaf| leaf as u16);
    issued.or_else(|| NOT_ISSUED.iter().find(|(_, known)| same_name(known, name)).map(|(number, _)| *number))
}

/// Dots and underscores are the same, and so are upper and lower case; `TDH` may be missing.
fn same_name(known: &str, given: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'.' } else { byte.to_ascii_uppercase() };
    let eq = |known: &str| known.len() == given.len() && known.bytes().eq(given.bytes().map(plain));
    eq(known) || known.strip_prefix("TDH.").is_some_and(eq)
}

/// Leaves of the ABI that no kernel up to 7.3 issues. Source: `include/tdx_api_defs.h` of Intel's module,
/// generation 2.0 (`seamcall_leaf_opcode_t`).
const NOT_ISSUED: [(u16, &str); 67] = [
    (5, "TDH.MEM.PAGE.RELOCATE"),
    (12, "TDH.MEM.RD"),
    (13, "TDH.MNG.WR"),
    (14, "TDH.MEM.WR"),
    (15, "TDH.MEM.PAGE.DEMOTE"),
    (23, "TDH.MEM.PAGE.PROMOTE"),
    (25, "TDH.MEM.SEPT.RD"),
    (27, "TDH.MNG.KEY.RECLAIMID"),
    (30, "TDH.MEM.SEPT.REMOVE"),
    (32, "TDH.SYS.INFO"),
    (37, "TDH.SYS.RDALL"),
    (39, "TDH.MEM.RANGE.UNBLOCK"),
    (42, "TDH.MEM.SEPT.WR"),
    (44, "TDH.SYS.LP.SHUTDOWN"),
    (48, "TDH.SERVTD.BIND"),
    (49, "TDH.SERVTD.PREBIND"),
    (58, "TDH.PHYMEM.PAMT.ADD"),
    (59, "TDH.PHYMEM.PAMT.REMOVE"),
    (64, "TDH.EXPORT.ABORT"),
    (65, "TDH.EXPORT.BLOCKW"),
    (66, "TDH.EXPORT.RESTORE"),
    (68, "TDH.EXPORT.MEM"),
    (70, "TDH.EXPORT.PAUSE"),
    (71, "TDH.EXPORT.TRACK"),
    (72, "TDH.EXPORT.STATE.IMMUTABLE"),
    (73, "TDH.EXPORT.STATE.TD"),
    (74, "TDH.EXPORT.STATE.VP"),
    (75, "TDH.EXPORT.UNBLOCKW"),
    (80, "TDH.IMPORT.ABORT"),
    (81, "TDH.IMPORT.END"),
    (82, "TDH.IMPORT.COMMIT"),
    (83, "TDH.IMPORT.MEM"),
    (84, "TDH.IMPORT.TRACK"),
    (85, "TDH.IMPORT.STATE.IMMUTABLE"),
    (86, "TDH.IMPORT.STATE.TD"),
    (87, "TDH.IMPORT.STATE.VP"),
    (96, "TDH.MIG.STREAM.CREATE"),
    (128, "TDH.IOMMU.SETREG"),
    (129, "TDH.IOMMU.GETREG"),
    (130, "TDH.SPDM.CREATE"),
    (131, "TDH.SPDM.DELETE"),
    (132, "TDH.IDE.STREAM.CREATE"),
    (133, "TDH.IDE.STREAM.BLOCK"),
    (134, "TDH.IDE.STREAM.DELETE"),
    (135, "TDH.IDE.STREAM.IDEKMREQ"),
    (136, "TDH.IDE.STREAM.IDEKMRSP"),
    (137, "TDH.DEVIF.CREATE"),
    (138, "TDH.DEVIF.REMOVE"),
    (139, "TDH.DEVIF.REQUEST"),
    (140, "TDH.DEVIF.RESPONSE"),
    (150, "TDH.DMAR.ADD"),
    (151, "TDH.DMAR.BLOCK"),
    (152, "TDH.DMAR.READ"),
    (153, "TDH.DMAR.REMOVE"),
    (154, "TDH.MMIO.MT.ADD"),
    (155, "TDH.MMIO.MT.SET"),
    (156, "TDH.MMIO.MT.RD"),
    (157, "TDH.MMIO.MT.REMOVE"),
    (158, "TDH.MMIO.MAP"),
    (159, "TDH.MMIO.BLOCK"),
    (160, "TDH.MMIO.UNMAP"),
    (161, "TDH.IQ.INV.REQUEST"),
    (162, "TDH.IQ.INV.PROCESS"),
    (163, "TDH.MEM.SHARED.SEPT.WR"),
    (164, "TDH.DEVIF.MT.ADD"),
    (165, "TDH.DEVIF.MT.REMOVE"),
    (166, "TDH.DEVIF.MT.RD"),
];

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

    #[test]
    fn names_are_found_in_every_spelling() {
        for leaf in Leaf::ALL {
            assert_eq!(Leaf::from_name(leaf.name()), Some(leaf));
        }
        for spelling in ["TDH_MEM_PAGE_REMOVE", "tdh_mem_page_remove", "MEM.PAGE.REMOVE", "mem_page_remove"] {
            assert_eq!(Leaf::from_name(spelling), Some(Leaf::MemPageRemove));
        }
        assert_eq!(Leaf::from_name("TDH.TDH.MEM.TRACK"), None);
        assert_eq!(Leaf::from_name(""), None);
        assert_eq!(number_of("tdh_mem_page_demote"), Some(15));
    }

    #[test]
    fn a_number_has_one_name_whoever_issues_it() {
        assert!(NOT_ISSUED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (number, name) in NOT_ISSUED {
            assert_eq!(Leaf::from_number(number.into()), None, "{name}");
            assert_eq!((name_of(number), number_of(name)), (Some(name), Some(number)));
        }
        assert_eq!(name_of(29), Some("TDH.MEM.PAGE.REMOVE"));
    }

    #[test]
    fn the_version_is_not_part_of_the_number() {
        assert_eq!(number_in(0x1_0016), Some(22));
        assert_eq!(number_in(1 << 63), None);
    }
}
