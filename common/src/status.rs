//! Status words: what a SEAMCALL answers in RAX, taken apart.
//!
//! A word is flags 63:60, class 47:40, detail 39:32 and, in bits 31:0, an operand or another detail (TDX module ABI
//! specification, "Function Completion Status Codes"; Linux `arch/x86/kvm/vmx/tdx_errno.h`). Everything here is
//! total: any 64-bit word decodes to something readable. The comparisons are single mask-and-compare operations,
//! because the eBPF programs make them on every SEAMCALL; the names are for userspace.

mod names;

use core::fmt;

/// `TDX_SEAMCALL_STATUS_MASK`: what Linux compares; the operand is not part of it.
const STATUS_MASK: u64 = 0xffff_ffff_0000_0000;

const OPERAND_BUSY: u64 = 0x8000_0200_0000_0000;
const OP_STATE_INCORRECT: u64 = 0xc000_0608_0000_0000;

/// A status word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Status(pub u64);

impl Status {
    /// `TDX_SUCCESS`.
    pub const SUCCESS: Self = Self(0);

    /// The word is zero: how KVM tests every leaf of the map and zap paths (`if (err)`). A status without the
    /// error flag, such as `TDX_GPA_RANGE_ALREADY_BLOCKED`, is not success in this sense, nor is the exit reason
    /// that TDH.VP.ENTER adds in bits 31:0 of a success.
    #[inline(always)]
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// Bit 63, `ERROR`.
    #[inline(always)]
    pub const fn is_error(self) -> bool {
        self.0 >> 63 != 0
    }

    /// Bit 62, `NON_RECOVERABLE`: the TD or vCPU cannot go on.
    #[inline(always)]
    pub const fn is_non_recoverable(self) -> bool {
        self.0 & (1 << 62) != 0
    }

    /// Bit 61, `FATAL`: the TD can only be torn down.
    #[inline(always)]
    pub const fn is_fatal(self) -> bool {
        self.0 & (1 << 61) != 0
    }

    /// Bit 60, `HOST_RECOVERABILITY_HINT`: the host may be able to remove the cause and repeat the call.
    #[inline(always)]
    pub const fn has_host_recoverability_hint(self) -> bool {
        self.0 & (1 << 60) != 0
    }

    /// `TDX_OPERAND_BUSY` on any operand: what KVM retries (`tdx_operand_busy()` in `arch/x86/kvm/vmx/tdx.c`).
    #[inline(always)]
    pub const fn is_busy(self) -> bool {
        self.0 & STATUS_MASK == OPERAND_BUSY
    }

    /// `TDX_OPERAND_BUSY` on RCX: the S-EPT entry itself was locked, and ext_err1 and ext_err2 describe it.
    #[inline(always)]
    pub const fn is_entry_busy(self) -> bool {
        self.0 == OPERAND_BUSY | 1
    }

    /// The word without its operand, as Linux compares it.
    #[inline(always)]
    pub const fn without_operand(self) -> Self {
        Self(self.0 & STATUS_MASK)
    }

    /// Bits 47:40.
    #[inline(always)]
    pub const fn class(self) -> Class {
        Class((self.0 >> 40) as u8)
    }

    /// Bits 39:32, the detail within the class.
    #[inline(always)]
    pub const fn detail(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// Bits 31:0: an operand ([`Self::operand`]), an exit reason, a trap number or nothing.
    #[inline(always)]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// The operand the status is about, where this status has one.
    ///
    /// Classes 0 and 0x11 keep an exit reason in these bits (TDH.VP.ENTER), class 9 an MSR or CPUID index, class
    /// 0xff a trap number, `TDX_OP_STATE_INCORRECT` the TD's OP_STATE (module generation 2.0). Zero means RAX only
    /// where the class is about invalid operands; elsewhere it means nothing.
    pub fn operand(self) -> Option<Operand> {
        if self.without_operand().0 == OP_STATE_INCORRECT {
            return None;
        }
        match self.class().0 {
            0x01 => Some(Operand(self.low())),
            0x02..=0x08 | 0x0a..=0x10 if self.low() != 0 => Some(Operand(self.low())),
            _ => None,
        }
    }

    /// The name, as the specification or Linux spells it; `None` for a word in neither's tables.
    pub fn name(self) -> Option<&'static str> {
        let upper = (self.0 >> 32) as u32;
        let software = names::SOFTWARE.iter().find(|(word, _)| *word == self.0).map(|(_, name)| *name);
        software.or_else(|| all_codes().find(|(code, _)| *code == upper).map(|(_, name)| name))
    }

    /// For a word without a name: the status of the same class and detail with other flags, if there is one.
    /// Module generations differ in the flags of a few codes.
    pub fn same_detail(self) -> Option<&'static str> {
        let key = (self.0 >> 32) as u16;
        // Class 0, detail 0 with odd flags is not a success.
        if key == 0 {
            return None;
        }
        all_codes().find(|(code, _)| *code as u16 == key).map(|(_, name)| name)
    }

    /// The status with this name, without operand. Case and a missing `TDX_` prefix do not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        let is_it = |known: &str| {
            known.eq_ignore_ascii_case(name)
                || known.strip_prefix("TDX_").is_some_and(|bare| bare.eq_ignore_ascii_case(name))
        };
        Self::all().find(|(_, known)| is_it(known)).map(|(status, _)| status)
    }

    /// Every named status, without operands.
    pub fn all() -> impl Iterator<Item = (Self, &'static str)> {
        let software = names::SOFTWARE.iter().map(|(word, name)| (Self(*word), *name));
        all_codes().map(|(code, name)| (Self(u64::from(code) << 32), name)).chain(software)
    }
}

fn all_codes() -> impl Iterator<Item = (u32, &'static str)> {
    names::CODES.iter().chain(names::LINUX_CODES).chain(names::EARLY_CODES).copied()
}

impl fmt::Display for Status {
    /// `TDX_TLB_TRACKING_NOT_DONE (0xc0000b0800000001, operand RCX)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} (0x{:016x}", self.0)?,
            None => {
                write!(
                    f,
                    "unnamed status (0x{:016x}, class {}, detail 0x{:02x}",
                    self.0,
                    self.class(),
                    self.detail()
                )?;
                if let Some(name) = self.same_detail() {
                    write!(f, ", {name} with other flags")?;
                }
            }
        }
        match self.operand() {
            Some(operand) => write!(f, ", operand {operand})"),
            None if self.low() == 0 || self.class() == Class::SOFTWARE => f.write_str(")"),
            None => write!(f, ", detail 0x{:x})", self.low()),
        }
    }
}

/// Bits 47:40 of a status word: what kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub u8);

impl Class {
    /// S-EPT and guest physical memory: the class whose statuses come with ext_err1 and ext_err2.
    pub const GUEST_MEMORY: Self = Self(0x0b);
    /// Made by Linux, not by the module: `TDX_SW_ERROR`.
    pub const SOFTWARE: Self = Self(0xff);

    /// The class in words. Up to 0x0e as in the specification's table of classes; above, by what the codes of the
    /// class are about.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x00 => "general",
            0x01 => "invalid operand",
            0x02 => "resource busy",
            0x03 => "page metadata",
            0x04 => "dependent resources",
            0x05 => "TDX module state",
            0x06 => "TD state",
            0x07 => "vCPU state",
            0x08 => "key management",
            0x09 => "platform state",
            0x0a => "physical memory",
            0x0b => "guest TD memory",
            0x0c => "metadata fields",
            0x0d => "service TD",
            0x0e => "migration",
            0x0f => "TDX Connect",
            0x10 => "measurement and report",
            0x11 => "TD partitioning",
            0xff => "software (the kernel, not the module)",
            _ => return None,
        })
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "0x{:02x} {name}", self.0),
            None => write!(f, "0x{:02x}", self.0),
        }
    }
}

/// Bits 31:0 of a status word, where they say which operand the status is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operand(pub u32);

impl Operand {
    /// A register's name, or the structure's: `RCX`, `TDR`, `SEPT_TREE`.
    pub fn name(self) -> Option<&'static str> {
        names::OPERANDS.iter().find(|(number, _)| *number == self.0).map(|(_, name)| *name)
    }

    /// The operand with this name, in upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        let is_it = |known: &&(u32, &str)| known.1.eq_ignore_ascii_case(name);
        names::OPERANDS.iter().find(is_it).map(|(number, _)| Self(*number))
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:x}", self.0),
        }
    }
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
