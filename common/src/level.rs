//! Page sizes of the S-EPT, in one unit whatever unit the kernel passes.

/// Size of a guest leaf, or depth of an S-EPT page (`L4K` is the lowest level).
///
/// The discriminants are the TDX module's own numbering: TDX Module ABI specification, "GPA, level" operands,
/// 0 = 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// 4 KiB
    L4K = 0,
    /// 2 MiB
    L2M = 1,
    /// 1 GiB
    L1G = 2,
    /// 512 GiB: only S-EPT pages live here, never a leaf.
    L512G = 3,
    /// 256 TiB: the root of a five-level S-EPT.
    L256T = 4,
}

impl Level {
    /// From the TDX module's numbering (4 KiB = 0), which `tdh_*` take up to Linux 7.1.
    #[inline(always)]
    pub const fn from_tdx(raw: u64) -> Option<Self> {
        Some(match raw {
            0 => Self::L4K,
            1 => Self::L2M,
            2 => Self::L1G,
            3 => Self::L512G,
            4 => Self::L256T,
            _ => return None,
        })
    }

    /// From the kernel's `enum pg_level` (4 KiB = 1), which `tdh_*` take from Linux 7.3 on.
    #[inline(always)]
    pub const fn from_pg_level(raw: u64) -> Option<Self> {
        match raw.checked_sub(1) {
            Some(tdx) => Self::from_tdx(tdx),
            None => None,
        }
    }

    /// Number of 4 KiB frames that a leaf of this size covers.
    #[inline(always)]
    pub const fn frames(self) -> u64 {
        1 << (9 * self as u32)
    }

    /// The first guest frame of the leaf of this size that `gfn` lies in.
    #[inline(always)]
    pub const fn head(self, gfn: u64) -> u64 {
        gfn & !(self.frames() - 1)
    }

    /// Short name: `4K`, `2M`, `1G`, `512G`, `256T`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L4K => "4K",
            Self::L2M => "2M",
            Self::L1G => "1G",
            Self::L512G => "512G",
            Self::L256T => "256T",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_both_kernels_meet() {
        for tdx in 0..5 {
            assert_eq!(Level::from_tdx(tdx), Level::from_pg_level(tdx + 1));
        }
        assert_eq!(Level::from_pg_level(0), None);
        assert_eq!(Level::from_tdx(5), None);
        assert_eq!(Level::L2M.frames(), 512);
        assert_eq!(Level::L2M.head(0x3ff), 0x200);
    }
}
