//! Kernel log lines that are about a SEAMCALL, taken apart. Total: any text parses, most of it to nothing.
//!
//! Formats, by where the kernel prints them:
//! - `SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0x…, entry 0x…, level_state 0x…`: `TDX_BUG_ON_2()` in
//!   `arch/x86/kvm/vmx/tdx.c`, from 6.19; with `rcx 0x…, rdx 0x…` instead: `pr_tdx_error_2()`, up to 6.18.
//! - `SEAMCALL (0x…) failed: 0x…`, then lines of `RCX 0x… RDX 0x… R08 0x…`: `seamcall_err_ret()` in
//!   `arch/x86/virt/vmx/tdx/`; all on one line in earlier KVM patches, which distributions shipped.
//! - `SEAMCALL failed: CPU 94: leaf 33, error 0x…`, then `additional output: rcx 0x…, …`, and
//!   `SEAMCALL[NAME(7)] failed: NAME(0x…)`: TDX host and KVM patches before they were merged.
//! - `TDH_VP_RD[…] failed 0x…`, `TDH_VP_WR[…]… failed: 0x…`, `TDH.SYS.DISABLE failed: 0x…`.
//! - `WARNING: CPU: 3 PID: 71 at arch/x86/kvm/vmx/tdx.c:1697 tdx_…+0x…/0x… [kvm_intel]` up to 6.18, and
//!   `WARNING: arch/x86/kvm/vmx/tdx.c:1828 at tdx_…+0x…/0x… [kvm_intel], CPU#3: comm/71` from 6.19.
//! - `tdh_mng_key_freeid() failed. HKID 33 is leaked.`
//! - `TD vp_enter_ret 0x…`: `__tdx_handle_exit()`, the answer of TDH.VP.ENTER.

use septwatch_common::{Status, leaf};

use super::words;

/// One line, as far as it is about TDX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A failed SEAMCALL.
    Call(Call),
    /// Registers of the call that the line before reported.
    More(Registers),
    /// A WARN in KVM's or the host's TDX code.
    Warning(Warning),
    /// An HKID that was not given back.
    HkidLeaked {
        /// The number of the leaf that failed.
        leaf: u16,
        /// The HKID.
        hkid: u64,
    },
    /// Anything else.
    Other,
}

/// A failed SEAMCALL, as a line or a person gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// What RAX held on entry, or the leaf's number.
    pub leaf: Option<u64>,
    /// The leaf's name where it is none that we know.
    pub unknown_leaf: Option<String>,
    /// What RAX held on return.
    pub status: Status,
    /// What else was printed.
    pub registers: Registers,
}

/// Output registers, where they were printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// ext_err1 of the S-EPT's leaves, called `entry` by the kernel.
    pub rcx: Option<u64>,
    /// ext_err2 of the S-EPT's leaves, called `level_state` by the kernel.
    pub rdx: Option<u64>,
    /// R8.
    pub r8: Option<u64>,
}

impl Registers {
    /// What is known here, completed by what `more` knows.
    pub fn or(self, more: Self) -> Self {
        Self { rcx: self.rcx.or(more.rcx), rdx: self.rdx.or(more.rdx), r8: self.r8.or(more.r8) }
    }
}

/// The head of a WARN splat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The source file.
    pub file: String,
    /// The line in it.
    pub line: u32,
    /// The function, without offset and compiler suffixes.
    pub function: Option<String>,
}

/// Takes a line apart.
pub fn parse(line: &str) -> Line {
    if let Some(warning) = warning(line) {
        return Line::Warning(warning);
    }
    hkid_leaked(line)
        .or_else(|| call(line).or_else(|| vp_enter(line)).map(Line::Call))
        .or_else(|| more(line))
        .unwrap_or(Line::Other)
}

fn call(line: &str) -> Option<Call> {
    let start = find_any(line, &["SEAMCALL", "TDH_", "TDH."])?;
    let (before, after) = line.get(start..)?.split_once("failed")?;
    let not_in_vmx = || after.contains("is not in VMX operation").then_some(Status(0x8000_ff00_0000_0006));
    let (status, rest) = match first_hex(after) {
        Some((raw, rest)) => (Status(raw), rest),
        None => (not_in_vmx()?, ""),
    };
    let (leaf, unknown_leaf) = leaf_in(before, after);
    Some(Call { leaf, unknown_leaf, status, registers: registers(rest) })
}

fn vp_enter(line: &str) -> Option<Call> {
    let (_, after) = line.split_once("TD vp_enter_ret ")?;
    let (status, _) = first_hex(after)?;
    Some(Call { leaf: Some(0), status: Status(status), ..Call::default() })
}

/// The leaf: a name, a number in brackets, or `leaf N` in what follows.
fn leaf_in(before: &str, after: &str) -> (Option<u64>, Option<String>) {
    if let Some(start) = find_any(before, &["TDH_", "TDH."]) {
        let rest = before.get(start..).unwrap_or_default();
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != '.');
        let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        return match leaf::number_of(name) {
            Some(number) => (Some(number.into()), None),
            None => (None, Some(words::shown(name))),
        };
    }
    let bracketed = before.split_once(['(', '[']).and_then(|(_, rest)| integer(rest));
    let named = || after.split_once("leaf ").and_then(|(_, rest)| integer(rest));
    (bracketed.or_else(named), None)
}

fn more(line: &str) -> Option<Line> {
    let found = registers(line);
    (found != Registers::default()).then_some(Line::More(found))
}

/// Pairs of a register's name and `0x…`, in any order, with or without commas.
fn registers(text: &str) -> Registers {
    let mut found = Registers::default();
    let mut tokens = text.split([' ', '\t', ',', ':']).filter(|token| !token.is_empty()).peekable();
    while let Some(key) = tokens.next() {
        let slot = match key {
            "rcx" | "RCX" | "entry" => &mut found.rcx,
            "rdx" | "RDX" | "level_state" => &mut found.rdx,
            "r8" | "R8" | "R08" => &mut found.r8,
            _ => continue,
        };
        let value = tokens.peek().filter(|token| token.starts_with("0x")).and_then(|token| first_hex(token));
        *slot = slot.or(value.map(|(value, _)| value));
    }
    found
}

fn warning(line: &str) -> Option<Warning> {
    let (_, rest) = line.split_once("WARNING: ")?;
    let mut tokens = rest.split([' ', ',']).filter(|token| !token.is_empty());
    let (file, number) = tokens.find_map(|token| {
        let (file, number) = token.rsplit_once(':')?;
        let number = number.parse().ok()?;
        file.ends_with(".c").then_some((file, number))
    })?;
    let function = tokens
        .find_map(|token| token.split_once("+0x"))
        .map(|(name, _)| name.split('.').next().unwrap_or(name));
    let ours = file.ends_with("kvm/vmx/tdx.c") || file.contains("virt/vmx/tdx/");
    // The one WARN about a TDX page that is in KVM's general MMU code: free_external_spt() failed.
    let external_spt = file.ends_with("kvm/mmu/tdp_mmu.c") && function == Some("handle_removed_pt");
    (ours || external_spt).then(|| Warning {
        file: words::shown(file),
        line: number,
        function: function.map(words::shown),
    })
}

fn hkid_leaked(line: &str) -> Option<Line> {
    let (before, after) = line.split_once("() failed. HKID ")?;
    let name = before.rsplit([' ', ':']).next()?;
    Some(Line::HkidLeaked { leaf: leaf::number_of(name)?, hkid: integer(after)? })
}

/// A decimal number, or a hexadecimal one after `0x`, at the start of the text.
fn integer(text: &str) -> Option<u64> {
    if text.starts_with("0x") {
        return first_hex(text).map(|(value, _)| value);
    }
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// The first `0x…` of the text that fits 64 bits, and what follows it.
fn first_hex(text: &str) -> Option<(u64, &str)> {
    let digits = text.get(text.find("0x")? + 2..)?;
    let end = digits.find(|letter: char| !letter.is_ascii_hexdigit()).unwrap_or(digits.len());
    let value = u64::from_str_radix(digits.get(..end)?, 16).ok()?;
    Some((value, digits.get(end..)?))
}

fn find_any(text: &str, needles: &[&str]) -> Option<usize> {
    needles.iter().filter_map(|needle| text.find(needle)).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call_of(leaf: u64, status: u64, rcx: Option<u64>, rdx: Option<u64>, r8: Option<u64>) -> Line {
        let registers = Registers { rcx, rdx, r8 };
        Line::Call(Call { leaf: Some(leaf), unknown_leaf: None, status: Status(status), registers })
    }

    #[test]
    fn every_format_of_a_failed_call() {
        let lines = [
            (
                "[   12.345678] kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x8000000000000000, level_state 0x0",
                call_of(29, 0xc000_0b0d_0000_0001, Some(1 << 63), Some(0), None),
            ),
            (
                "kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0x8000020000000092, rcx 0x1000, rdx 0x7f000",
                call_of(7, 0x8000_0200_0000_0092, Some(0x1000), Some(0x7f000), None),
            ),
            (
                "kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000040000000000, rcx 0x4, rdx, 0x0, r8 0x0",
                call_of(28, 0xc000_0400_0000_0000, Some(4), Some(0), Some(0)),
            ),
            (
                "virt/tdx: SEAMCALL (0x0000000000000024) failed: 0xc0000a0000000001",
                call_of(36, 0xc000_0a00_0000_0001, None, None, None),
            ),
            (
                "SEAMCALL (0x000000000000001c) failed: 0xc000030000000001 RCX 0x3 RDX 0x2000 R8 0x1 R9 0x0 R10 0x0 R11 0x0",
                call_of(28, 0xc000_0300_0000_0001, Some(3), Some(0x2000), Some(1)),
            ),
            (
                "tdx: SEAMCALL failed: CPU 94: leaf 33, error 0xc000050000000000.",
                call_of(33, 0xc000_0500_0000_0000, None, None, None),
            ),
            (
                "SEAMCALL[TDH_MEM_PAGE_AUG(6)] failed: TDX_OPERAND_BUSY (0x8000020000000001)",
                call_of(6, 0x8000_0200_0000_0001, None, None, None),
            ),
            ("SEAMCALL[7] failed: 0x8000020000000001", call_of(7, 0x8000_0200_0000_0001, None, None, None)),
            (
                "TDH_VP_RD[VMCS.0x4402] failed 0xc000070000000000",
                call_of(26, 0xc000_0700_0000_0000, None, None, None),
            ),
            (
                "TDH_VP_WR[VMCS.0x2000]=0x1234 failed: 0xc000070000000000",
                call_of(43, 0xc000_0700_0000_0000, None, None, None),
            ),
            (
                "virt/tdx: TDH.SYS.DISABLE failed: 0x8000020200000000",
                call_of(69, 0x8000_0202_0000_0000, None, None, None),
            ),
            (
                "kvm [71]: TD vp_enter_ret 0x6000000500000000",
                call_of(0, 0x6000_0005_0000_0000, None, None, None),
            ),
        ];
        for (line, expected) in lines {
            assert_eq!(parse(line), expected, "{line}");
        }
        let not_in_vmx = parse("tdx: SEAMCALL failed: CPU 3 is not in VMX operation.");
        assert!(matches!(
            not_in_vmx,
            Line::Call(Call { leaf: None, status: Status(0x8000_ff00_0000_0006), .. })
        ));
    }

    #[test]
    fn registers_on_lines_of_their_own() {
        let line = "virt/tdx: RCX 0x0000000000000001 RDX 0x0000000000000002 R08 0x0000000000000003";
        let all = Registers { rcx: Some(1), rdx: Some(2), r8: Some(3) };
        assert_eq!(parse(line), Line::More(all));
        assert_eq!(parse("additional output: rcx 0x1, rdx 0x2, r8 0x3, r9 0x0."), Line::More(all));
        assert_eq!(parse("RDX: 0000000000000000 RSI: 0000000000000000"), Line::Other, "a splat's registers");
    }

    #[test]
    fn both_banners_of_a_warning() {
        let old = "WARNING: CPU: 3 PID: 71 at arch/x86/kvm/vmx/tdx.c:1697 tdx_sept_remove_private_spte+0x1d3/0x2a0 [kvm_intel]";
        let new = "WARNING: arch/x86/kvm/vmx/tdx.c:1836 at tdx_sept_set_private_spte.isra.0+0x1d3/0x2a0 [kvm_intel], CPU#3: qemu/71";
        let cases = [(old, 1697, "tdx_sept_remove_private_spte"), (new, 1836, "tdx_sept_set_private_spte")];
        for (line, number, function) in cases {
            let expected = Warning {
                file: "arch/x86/kvm/vmx/tdx.c".into(),
                line: number,
                function: Some(function.into()),
            };
            assert_eq!(parse(line), Line::Warning(expected));
        }
        assert_eq!(parse("WARNING: mm/page_alloc.c:12 at __alloc_pages+0x1/0x2, CPU#0: init/1"), Line::Other);
    }

    #[test]
    fn leaks_and_noise() {
        let leak = parse("kvm_intel: tdh_mng_key_freeid() failed. HKID 33 is leaked.");
        assert_eq!(leak, Line::HkidLeaked { leaf: 20, hkid: 33 });
        for line in [
            "",
            "failed",
            "SEAMCALL",
            "SEAMCALL failed",
            "usb 1-1: device failed: 0x5",
            "virt/tdx: module not loaded",
        ] {
            assert_eq!(parse(line), Line::Other, "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_parse(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn broken_pieces_of_real_lines_parse(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "SEAMCALL", " ", "(", "[", "0x", "TDH_", "TDH.", "failed", ": ", "ffffffffffffffffff", "leaf ", "é",
                "WARNING: ", ".c:", "tdx.c:1", "+0x", "() failed. HKID ", "rcx ", "entry ", ",", "99999999999999999999",
            ]), 0..12),
        ) {
            parse(&pieces.concat());
        }
    }
}
