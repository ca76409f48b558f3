#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]
//! The tables against themselves and against the words that the kernel's documentation and posts show.

extern crate std;

use proptest::prelude::*;
use std::format;
use std::string::ToString;

use super::*;

/// Upper halves and names, typed in from Linux' headers and kernel posts, not from the table under test.
const KERNEL_WORDS: [(u32, &str); 28] = [
    (0x8000_0200, "OPERAND_BUSY"),
    (0x8000_0201, "PREVIOUS_TLB_EPOCH_BUSY"),
    (0x8000_0202, "SYS_BUSY"),
    (0x8000_0203, "RND_NO_ENTROPY"),
    (0xC000_0100, "OPERAND_INVALID"),
    (0xC000_0300, "PAGE_METADATA_INCORRECT"),
    (0x0000_0301, "PAGE_ALREADY_FREE"),
    (0xC000_0302, "PAGE_NOT_OWNED_BY_TD"),
    (0xC000_0400, "TD_ASSOCIATED_PAGES_EXIST"),
    (0xE000_0604, "TD_FATAL"),
    (0x8000_0817, "WBCACHE_NOT_COMPLETE"),
    (0x8000_0824, "FLUSHVP_NOT_DONE"),
    (0xC000_0B00, "EPT_WALK_FAILED"),
    (0xC000_0B03, "EPT_ENTRY_NOT_PRESENT"),
    (0xC000_0B06, "GPA_RANGE_NOT_BLOCKED"),
    (0x0000_0B07, "GPA_RANGE_ALREADY_BLOCKED"),
    (0xC000_0B08, "TLB_TRACKING_NOT_DONE"),
    (0xC000_0B0B, "PAGE_SIZE_MISMATCH"),
    (0xC000_0B0C, "GPA_RANGE_BLOCKED"),
    (0xC000_0B0D, "EPT_ENTRY_STATE_INCORRECT"),
    (0xC000_0607, "LIFECYCLE_STATE_INCORRECT"),
    (0xC000_0608, "OP_STATE_INCORRECT"),
    (0xC000_0811, "KEY_STATE_INCORRECT"),
    (0x6000_0005, "NON_RECOVERABLE_TD_NON_ACCESSIBLE"),
    (0x4000_0001, "NON_RECOVERABLE_VCPU"),
    (0x4000_0002, "NON_RECOVERABLE_TD"),
    (0x6000_0007, "NON_RECOVERABLE_TD_WRONG_APIC_MODE"),
    (0x0000_0815, "KEY_CONFIGURED"),
];

#[test]
fn words_of_the_kernel_have_the_kernels_names() {
    for (upper, name) in KERNEL_WORDS {
        for operand in [0u64, 1, 0x80, 0x92] {
            let status = Status(u64::from(upper) << 32 | operand);
            assert_eq!(status.name().unwrap().strip_prefix("TDX_"), Some(name));
        }
        let found = Status::from_name(name).unwrap();
        assert_eq!(found.0 >> 32 & 0xffff, u64::from(upper) & 0xffff);
    }
}

#[test]
fn every_named_status_round_trips() {
    for (status, name) in Status::all() {
        assert_eq!(status.name(), Some(name));
        // A name that Linux spells with other flags finds the module's word: same class and detail.
        let found = Status::from_name(name).unwrap();
        assert_eq!((found.class(), found.detail()), (status.class(), status.detail()));
        assert!(status.class().name().is_some(), "{name} has a class without a name");
        assert!(status.to_string().starts_with(name));
    }
}

#[test]
fn tables_are_sorted_and_without_duplicates() {
    assert!(names::CODES.windows(2).all(|pair| pair[0].0 as u16 <= pair[1].0 as u16));
    assert!(names::OPERANDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for (index, (code, name)) in all_codes().enumerate() {
        assert!(all_codes().skip(index + 1).all(|(other, _)| other != code), "{name} is in the tables twice");
    }
}

#[test]
fn flags_are_the_top_four_bits() {
    let fatal = Status(0xe000_0604_0000_0000);
    assert!(fatal.is_error() && fatal.is_non_recoverable() && fatal.is_fatal());
    assert!(!fatal.has_host_recoverability_hint());
    assert!(Status(0x9000_0205_0000_0000).has_host_recoverability_hint());
    let already = Status(0x0000_0b07_0000_0001);
    assert!(!already.is_error() && !already.is_success());
    assert!(Status::SUCCESS.is_success());
}

#[test]
fn busy_is_what_kvm_retries_and_nothing_else() {
    let busy: std::vec::Vec<_> = Status::all().filter(|(status, _)| status.is_busy()).collect();
    assert_eq!(busy, [(Status(0x8000_0200_0000_0000), "TDX_OPERAND_BUSY")]);
    assert!(Status(0x8000_0200_0000_0092).is_busy());
    assert!(Status(0x8000_0200_0000_0001).is_entry_busy());
    assert!(!Status(0x8000_0200_0000_0092).is_entry_busy());
    assert!(!Status(0x8000_0201_0000_00a9).is_busy(), "TDH.MEM.TRACK's epoch busy is not retried");
}

#[test]
fn shown_as_a_person_reads_it() {
    let shown = [
        (0xc000_0b08_0000_0001, "TDX_TLB_TRACKING_NOT_DONE (0xc0000b0800000001, operand RCX)"),
        (0x8000_0200_0000_0092, "TDX_OPERAND_BUSY (0x8000020000000092, operand SEPT_TREE)"),
        (0xc000_0100_0000_0000, "TDX_OPERAND_INVALID (0xc000010000000000, operand RAX)"),
        (0x8000_0201_0000_0000, "TDX_PREVIOUS_TLB_EPOCH_BUSY (0x8000020100000000)"),
        (0xc000_0400_0000_0000, "TDX_TD_ASSOCIATED_PAGES_EXIST (0xc000040000000000)"),
        (0xc000_0300_0000_0033, "TDX_PAGE_METADATA_INCORRECT (0xc000030000000033, operand 0x33)"),
        (0xc000_0608_0000_0002, "TDX_OP_STATE_INCORRECT (0xc000060800000002, detail 0x2)"),
        (0x8000_ff00_0000_000d, "TDX_SEAMCALL_GP (0x8000ff000000000d)"),
        (0x8000_ff00_ffff_0000, "TDX_SEAMCALL_VMFAILINVALID (0x8000ff00ffff0000)"),
        (0x0000_0000_0000_0030, "TDX_SUCCESS (0x0000000000000030, detail 0x30)"),
        (
            0xa000_0b08_0000_0001,
            "unnamed status (0xa0000b0800000001, class 0x0b guest TD memory, detail 0x08, \
             TDX_TLB_TRACKING_NOT_DONE with other flags, operand RCX)",
        ),
        (0xdead_beef_0000_0000, "unnamed status (0xdeadbeef00000000, class 0xbe, detail 0xef)"),
        (
            u64::MAX,
            "unnamed status (0xffffffffffffffff, class 0xff software (the kernel, not the module), detail 0xff)",
        ),
    ];
    for (word, text) in shown {
        assert_eq!(Status(word).to_string(), text);
    }
    assert_eq!(Status(0).to_string(), "TDX_SUCCESS (0x0000000000000000)");
}

proptest! {
    #[test]
    fn any_word_can_be_shown(word: u64) {
        let text = format!("{}", Status(word));
        let hex = format!("0x{word:016x}");
        prop_assert!(text.contains(&hex));
    }
}
