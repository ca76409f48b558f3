//! The leaves that hand over no page: entering a TD, and the host's own dealings with the module.
//!
//! Not here: MNG.RD, VP.RD, VP.WR and PHYMEM.PAGE.RDMD, which read or write a field and change nothing else.

use septwatch_common::Leaf;

use super::{Answer, On, Outcome, Row};

const fn answer(status: &'static str, means: &'static str) -> Answer {
    Answer { status, means }
}

const fn outcome(
    on: On,
    kvm: &'static str,
    may_follow: &'static [&'static str],
    source: &'static str,
) -> Outcome {
    Outcome { on, kernels: "", kvm, may_follow, source }
}

/// A call of the host's initialization; one failure ends it.
const fn init(leaf: Leaf, does: &'static str, answers: &'static [Answer], handler: &'static str) -> Row {
    const FAILS: &[Outcome] = &[outcome(
        On::Failure,
        "the host's TDX initialization ends here (\"TDX-Module initialization failed\"): no TD can be made on this \
         host, KVM's TDX support stays off",
        &[],
        "seamcall_prerr(), tdx_enable(), arch/x86/virt/vmx/tdx/tdx.c",
    )];
    Row { leaf, does, answers, outcomes: FAILS, handler }
}

/// Entering a TD.
pub(super) const ENTER: &[Row] = &[Row {
    leaf: Leaf::VpEnter,
    does: "runs a vCPU of the TD until it exits; bits 31:0 of the answer are the exit reason",
    answers: &[
        answer(
            "OPERAND_BUSY|SEPT_TREE",
            "another CPU holds the lock of the S-EPT tree (zero-step mitigation)",
        ),
        answer("OPERAND_BUSY|TD_EPOCH", "another CPU is changing the TD's epoch (TDH.MEM.TRACK)"),
        answer("NON_RECOVERABLE_VCPU", "this vCPU cannot go on: a triple fault, for instance"),
        answer("NON_RECOVERABLE_TD", "the TD cannot go on"),
        answer(
            "NON_RECOVERABLE_TD_NON_ACCESSIBLE",
            "the TD cannot go on, and its private memory can no longer be read: a machine check or an integrity error",
        ),
        answer("NON_RECOVERABLE_TD_WRONG_APIC_MODE", "the CPU is not in x2APIC mode"),
        answer("VCPU_ASSOCIATED", "the vCPU is still on another CPU: it was moved without TDH.VP.FLUSH"),
    ],
    outcomes: &[
        outcome(On::Busy, "enters again later. Normal traffic", &[], "tdx_exit_handlers_fastpath()"),
        outcome(
            On::Status("SEAMCALL_GP"),
            "marks the VM bugged, unless the host is rebooting",
            &["vm-bugged"],
            "tdx_handle_exit()",
        ),
        outcome(
            On::Status("SEAMCALL_UD"),
            "marks the VM bugged, unless the host is rebooting",
            &["vm-bugged"],
            "tdx_handle_exit()",
        ),
        outcome(
            On::Status("SEAMCALL_VMFAILINVALID"),
            "marks the VM bugged, unless the host is rebooting",
            &["vm-bugged"],
            "tdx_handle_exit()",
        ),
        outcome(
            On::Failure,
            "hands the exit to the VMM (a shutdown after a triple fault, else an internal error with the status); \
             the VM is not marked bugged, and pages stay with the TD until they are zapped",
            &[],
            "tdx_handle_exit()",
        ),
    ],
    handler: "tdh_vp_enter.c",
}];

/// From the module's start to its end.
pub(super) const SYSTEM: &[Row] = &[
    init(
        Leaf::SysInit,
        "starts the module, once a boot",
        &[
            answer("SYS_INIT_NOT_PENDING", "the module was started before"),
            answer(
                "INCORRECT_CPUID_VALUE",
                "the module is too old for this CPU, or a CPU feature it needs is off",
            ),
        ],
        "tdh_sys_init.c",
    ),
    init(
        Leaf::SysLpInit,
        "starts the module on one CPU",
        &[
            answer("SYS_LP_INIT_DONE", "this CPU was started before"),
            answer("SYS_LP_INIT_NOT_PENDING", "the module is not in a state to start CPUs"),
        ],
        "tdh_sys_lp_init.c",
    ),
    init(
        Leaf::SysRd,
        "reads one of the module's own fields",
        &[answer("METADATA_FIELD_ID_INCORRECT", "the module does not have this field: an older generation")],
        "tdh_sys_rd.c",
    ),
    init(
        Leaf::SysConfig,
        "tells the module which memory it may use (TDMRs), and the HKID for its own data",
        &[
            answer(
                "TDMR_OUTSIDE_CMRS",
                "a memory range is not in convertible memory as the firmware declared it",
            ),
            answer("INVALID_PAMT", "a memory range's PAMT is not valid"),
            answer("PAMT_OVERLAP", "a memory range's PAMT overlaps another range"),
        ],
        "tdh_sys_config.c",
    ),
    init(
        Leaf::SysKeyConfig,
        "makes the module's own key on one package",
        &[
            answer(
                "KEY_GENERATION_FAILED",
                "the hardware's random numbers ran out, or another PCONFIG is under way",
            ),
            answer("SYS_KEY_CONFIG_NOT_PENDING", "every package has the key already"),
        ],
        "tdh_sys_key_config.c",
    ),
    init(
        Leaf::SysTdmrInit,
        "prepares the page metadata (PAMT) of the next part of a memory range",
        &[
            answer("OPERAND_INVALID|RCX", "no memory range starts at this address"),
            answer("TDMR_ALREADY_INITIALIZED", "the whole range is prepared (not an error)"),
        ],
        "tdh_sys_tdmr_init.c",
    ),
];
