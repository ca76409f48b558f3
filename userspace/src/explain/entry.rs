//! What the registers of a failed call say.

use septwatch_common::{
    Leaf, Level,
    sept::{self, EntryState, LevelState},
    status::Class,
};

use super::Call;

/// Sentences on RCX, RDX and R8, as far as they were printed.
pub(super) fn registers(call: &Call, leaf: Option<Leaf>) -> Vec<String> {
    let exited = call.status.low() != 0 || call.status.is_success();
    if leaf == Some(Leaf::VpEnter) && exited && !call.status.is_error() {
        return vec![exit_reason(call.status.low())];
    }
    let (Some(rcx), Some(rdx)) = (call.registers.rcx, call.registers.rdx) else { return Vec::new() };
    match leaf {
        Some(Leaf::PhymemPageReclaim) => reclaim(rcx, rdx, call.registers.r8),
        Some(
            Leaf::MemPageAdd
            | Leaf::MemSeptAdd
            | Leaf::MemPageAug
            | Leaf::MemRangeBlock
            | Leaf::MemPageRemove
            | Leaf::MrExtend,
        ) => sept(call, rcx, rdx),
        _ => Vec::new(),
    }
}

fn sept(call: &Call, rcx: u64, rdx: u64) -> Vec<String> {
    if let Some((entry, place)) = sept::described(call.status, rcx, rdx) {
        let mut said = vec![format!("S-EPT entry: {place}; {entry}")];
        said.extend(state(place).map(|means| format!("{} means: {means}", place.state())));
        return said;
    }
    if call.status.class() == Class::SOFTWARE {
        let level = LevelState(rcx & 7).level().map_or("?", Level::name);
        let gpa = rcx & !0xfff;
        return vec![format!(
            "the call never reached the module, so these are its operands: gpa 0x{gpa:x}, {level}, TDR 0x{rdx:x}"
        )];
    }
    if rcx | rdx == 0 {
        return vec!["no S-EPT entry: the module describes none with this status".into()];
    }
    vec![format!("RCX 0x{rcx:x} and RDX 0x{rdx:x} are no S-EPT entry after this status")]
}

/// What a state means for the page, in the words of the TDX module specification.
fn state(place: LevelState) -> Option<&'static str> {
    Some(match place.state() {
        EntryState::FREE => "the S-EPT maps nothing here",
        EntryState::BLOCKED => "the page is still owned by the TD; BLOCK was done, REMOVE was not",
        EntryState::PENDING => "the page is owned by the TD, which has not accepted it yet",
        EntryState::PENDING_BLOCKED => {
            "the page is owned by the TD, which had not accepted it; BLOCK was done, REMOVE was not"
        }
        EntryState::MAPPED => "the page is owned by the TD and in use",
        _ => return None,
    })
}

/// Exit reasons of a TD: `arch/x86/include/uapi/asm/vmx.h`.
const EXIT_REASONS: [(u32, &str); 19] = [
    (0, "EXCEPTION_NMI"),
    (1, "EXTERNAL_INTERRUPT"),
    (2, "TRIPLE_FAULT"),
    (6, "OTHER_SMI"),
    (10, "CPUID"),
    (12, "HLT"),
    (18, "VMCALL"),
    (30, "IO_INSTRUCTION"),
    (31, "MSR_READ"),
    (32, "MSR_WRITE"),
    (33, "INVALID_STATE"),
    (34, "MSR_LOAD_FAIL"),
    (41, "MCE_DURING_VMENTRY"),
    (48, "EPT_VIOLATION"),
    (49, "EPT_MISCONFIG"),
    (74, "BUS_LOCK"),
    (75, "NOTIFY"),
    (76, "SEAMCALL"),
    (77, "TDCALL"),
];

fn exit_reason(low: u32) -> String {
    let basic = low & 0xffff;
    let name = EXIT_REASONS.iter().find(|(reason, _)| *reason == basic).map_or("unknown", |(_, name)| name);
    format!("exit reason {basic}, {name}")
}

/// PAMT page types: `page_type_t` in the module's `pamt_manager.h`.
const PAGE_TYPES: [(u64, &str); 8] = [
    (0, "free"),
    (1, "reserved"),
    (3, "guest page"),
    (4, "TDR"),
    (5, "control page (TDCS or TDVPS)"),
    (6, "TDVPR"),
    (8, "S-EPT page"),
    (15, "PAMT page"),
];

fn reclaim(page_type: u64, owner: u64, size: Option<u64>) -> Vec<String> {
    if page_type | owner == 0 {
        return vec!["the module says nothing of the page with this status".into()];
    }
    let named = PAGE_TYPES.iter().find(|(number, _)| *number == page_type);
    let what = named.map_or_else(|| format!("page type {page_type}"), |(_, name)| (*name).to_owned());
    let size = size
        .and_then(|size| LevelState(size & 7).level())
        .map_or(String::new(), |level| format!(" of {}", level.name()));
    let of = if owner == 0 { String::new() } else { format!(", owned by the TD with TDR 0x{owner:x}") };
    vec![format!("the page in PAMT: {what}{size}{of}")]
}
