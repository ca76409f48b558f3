//! Attaching the programs: to this kernel, or to the demo's functions. From then on both are the same source.

use std::mem::offset_of;

use aya::Btf;
use septwatch_common::{
    Leaf,
    config::{HOOKED, NO_ARGUMENT, Shape},
    kvm::POINTS,
};
use thiserror::Error;

use super::{
    demo::module::{self, TdxTd, TdxVp},
    kernel::{Kernel, KernelError},
    walk::{self, WalkError},
};
use crate::hooks::{
    attach::{self, AttachError},
    btf::{BtfError, KernelBtf, SYSFS},
    calibrate::{self, CalibrateError},
    host::{Allowed, Host, Memory, MemoryError, Probe},
    load::{Memory as Pointers, Rings, Settings},
    offsets::Offsets,
    pins::{HookNote, Note, Pins},
    plan::{self, PageToPfn, Plan, State},
    points,
    reactions::Needs,
    shape::{LevelUnit, PageUnit, Role, Shape as PlanShape},
    symbols::{SymbolError, Symbols},
    table::Need,
};

/// What the person who starts septwatch can choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most memory that the ledger may take, in bytes.
    pub ledger_limit: Option<u64>,
    /// Ring buffers.
    pub rings: Rings,
    /// Log level of the programs: 0 is off, 1 error to 5 trace.
    pub log_level: u8,
    /// Attach to functions by kprobes even where fexit works.
    pub kprobes: bool,
    /// Measure how long SEAMCALLs take, at the price of a second program at each of their functions.
    pub latency: bool,
    /// Attach what a policy needs.
    pub reactions: Needs,
    /// Turns that a walk waits between its two looks at a frame: for tests.
    pub walk_delay: u32,
}

/// The programs cannot be attached on this host.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Without capabilities nothing can be tried.
    #[error(
        "this process lacks {missing}: run as root, or give them with `setcap {setcap}+ep` on the binary"
    )]
    Capabilities {
        /// Names of the capabilities.
        missing: String,
        /// The same, as setcap wants them.
        setcap: String,
    },
    /// The types of the kernel cannot be read.
    #[error("the types of this kernel: {0}; it needs CONFIG_DEBUG_INFO_BTF=y")]
    Btf(#[from] BtfError),
    /// aya cannot read them.
    #[error("the types of this kernel (/sys/kernel/btf/vmlinux)")]
    AyaBtf(#[from] aya::BtfError),
    /// The symbols cannot be read.
    #[error(transparent)]
    Symbols(#[from] SymbolError),
    /// The memory map cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The size of `struct page` is not known.
    #[error("the types of this kernel have no struct page")]
    NoStructPage,
    /// Where `struct page` lies is not to be found.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Hooks without which verdicts would be false.
    #[error("{} of {} hooks that every verdict needs cannot be attached: {}. \
         `septwatch doctor` says what this host has and what would help; `septwatch demo` needs no TDX", .missing.len(), .of, .missing.join("; "))]
    Hooks {
        /// Name and reason of each.
        missing: Vec<String>,
        /// Hooks that are needed.
        of: usize,
    },
    /// The programs cannot be loaded, attached or read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// They cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Refuses at once where a capability is missing: everything else would fail with a less helpful word.
///
/// # Errors
/// The names of what is missing.
pub fn check_capabilities() -> Result<(), OpenError> {
    let missing: Vec<_> = crate::hooks::host::missing_capabilities();
    if missing.is_empty() {
        return Ok(());
    }
    Err(OpenError::Capabilities {
        missing: missing.join(", "),
        setcap: missing.join(",").to_ascii_lowercase(),
    })
}

/// Attaches to the demo's functions. `shape` is the kernel that they are to be like. With `pins`, the programs can outlive
/// this process.
///
/// Returns the source and how the module must read pages.
///
/// # Errors
/// See [`OpenError`].
pub fn demo(
    shape: module::Shape,
    options: &Options,
    pins: Option<Pins>,
) -> Result<(Kernel, module::Config), OpenError> {
    check_capabilities()?;
    let btf = Btf::from_sys_fs()?;
    let types = KernelBtf::read(SYSFS.as_ref(), &Offsets::STRUCTURES.iter().copied().collect())?;
    let size = u64::from(types.vmlinux.size_of("page").ok_or(OpenError::NoStructPage)?);
    let page = calibrate::calibrate(size, Some(&btf))?;
    let ram = Memory::running()?;
    let settings = Settings {
        page,
        tdr_page: offset_of!(TdxTd, tdr_page) as u64,
        tdvpr_page: offset_of!(TdxVp, tdvpr_page) as u64,
        memory: Pointers::User,
        premap_exempt: false,
        shapes: HOOKED.iter().map(|leaf| (*leaf, demo_shape(*leaf, shape))).collect(),
        points: [[NO_ARGUMENT; 4]; POINTS],
        members: Offsets::resolve(&types)?.members(),
        zap_takes_pfn: false,
        gmem_fallocate: 0,
        frames: ram.frames(),
        highest_pfn: ram.highest_pfn(),
        probes: true,
        kvm_vm_release: 0,
        walk_delay: 0,
        ledger_limit: options.ledger_limit,
        rings: options.rings,
        log_level: options.log_level,
        latency: options.latency,
    };
    let mut kernel = Kernel::load(&settings, Some(&btf), pins)?;
    kernel.attach_releases()?;
    let addresses = module::addresses();
    let functions: Vec<_> = HOOKED
        .iter()
        .filter_map(|leaf| {
            let name = attach::function(*leaf)?;
            let (_, address) = addresses.iter().find(|(known, _)| *known == name)?;
            Some((*leaf, *address as u64))
        })
        .collect();
    kernel.attach_own(&functions)?;
    kernel.begin()?;
    let config = module::Config { shape, vmemmap_base: page.base, page_struct_size: page.size };
    Ok((kernel, config))
}

/// How the live source came to be.
#[derive(Debug)]
pub struct Opened {
    /// Hooks of the plan.
    pub hooks: usize,
    /// Those of them that are attached.
    pub attached: usize,
    /// Those that were planned, and that the kernel then refused.
    pub not_attached: Vec<(&'static str, AttachError)>,
    /// Whether a ledger that another process left was taken over, instead of beginning an empty one.
    pub taken_over: bool,
    /// Whether a ledger was running that this version cannot take over, and was removed.
    pub replaced: bool,
    /// Whether the programs measure how long SEAMCALLs take: with a ledger that was taken over, whether they were
    /// attached so.
    pub latency: bool,
    /// Reactions whose programs are attached.
    pub reactions: Needs,
    /// Why TDs that run already cannot be taken over, where that is known.
    pub walk: Option<WalkError>,
    /// The plan that was followed; none where the programs were attached by another process.
    pub plan: Option<Plan>,
    /// How that came out, hook by hook.
    pub told: Vec<HookNote>,
}

/// Each hook of a plan, of which some the kernel then refused.
fn noted(plan: &Plan, refused: &[(&'static str, AttachError)]) -> Vec<HookNote> {
    let note = |hook: &plan::Hook| {
        let refused = refused.iter().find(|(name, _)| *name == hook.name);
        let (bound, missing) = match (&hook.state, refused) {
            (_, Some((_, error))) => (None, Some(crate::told::told(error))),
            (State::Bound(bound), None) => (Some(bound.to_string()), None),
            (State::Missing { reason }, None) => (None, Some(reason.to_string())),
        };
        HookNote { name: hook.name.to_owned(), bound, missing }
    };
    plan.hooks.iter().map(note).collect()
}

/// The plan for this kernel.
///
/// # Errors
/// Its types or symbols cannot be read.
pub fn plan_for(options: &Options) -> Result<Plan, OpenError> {
    let types = KernelBtf::read(SYSFS.as_ref(), &plan::btf_names())?;
    plan_of(&types, Allowed::probe(Some(&types.vmlinux)), options)
}

fn plan_of(types: &KernelBtf, mut allowed: Allowed, options: &Options) -> Result<Plan, OpenError> {
    let symbols = Symbols::running(&plan::symbol_names())?;
    if options.kprobes {
        allowed.fexit = Probe::Refused("--kprobes".to_owned());
    }
    Ok(plan::plan(types, Some(&symbols), &allowed)?)
}

/// The plan for this kernel, and what the host says of itself.
///
/// # Errors
/// The kernel's types or symbols cannot be read.
pub fn plan_and_host(options: &Options) -> Result<(Plan, Host), OpenError> {
    let types = KernelBtf::read(SYSFS.as_ref(), &plan::btf_names())?;
    let host = Host::running(Some(&types.vmlinux));
    Ok((plan_of(&types, host.allowed.clone(), options)?, host))
}

/// Takes over the ledger that another process left, or attaches to this kernel's functions, as the plan says: `plan`, where
/// somebody has made it already.
///
/// # Errors
/// See [`OpenError`].
pub fn live(options: &Options, plan: Option<Plan>) -> Result<(Kernel, Opened), OpenError> {
    check_capabilities()?;
    // What cannot be taken over is removed below, like that of another version.
    if let Some((pins, Note { hooks, attached, latency, reactions, plan: told, .. })) = Pins::left()
        && let Ok(kernel) = Kernel::take_over(pins)
    {
        let opened = Opened {
            hooks,
            attached,
            not_attached: Vec::new(),
            taken_over: true,
            replaced: false,
            latency,
            reactions,
            walk: None,
            plan: None,
            told,
        };
        return Ok((kernel, opened));
    }
    let plan = match plan {
        Some(plan) => plan,
        None => plan_for(options)?,
    };
    let missing: Vec<_> = plan
        .missing_required()
        .map(|hook| match &hook.state {
            State::Missing { reason } => format!("{} ({reason})", hook.name),
            State::Bound(_) => hook.name.to_owned(),
        })
        .collect();
    if !missing.is_empty() {
        let of = plan.hooks.iter().filter(|hook| hook.need == Need::Required).count();
        return Err(OpenError::Hooks { missing, of });
    }
    let btf = Btf::from_sys_fs()?;
    let size = u64::from(plan.offsets.struct_page_size.ok_or(OpenError::NoStructPage)?);
    let told = match plan.page_to_pfn {
        PageToPfn::Kallsyms { address } => calibrate::read(size, address, Some(&btf))?,
        PageToPfn::Calibrate { .. } | PageToPfn::Undecided => None,
    };
    let page = match told {
        Some(page) => page,
        None => calibrate::calibrate(size, Some(&btf))?,
    };
    let ram = Memory::running()?;
    let settings = Settings {
        page,
        tdr_page: u64::from(plan.offsets.tdx_td_tdr_page.unwrap_or(0)),
        tdvpr_page: u64::from(plan.offsets.tdx_vp_tdvpr_page.unwrap_or(0)),
        memory: Pointers::Kernel,
        premap_exempt: plan.offsets.kvm_tdx_nr_premapped.is_some(),
        shapes: HOOKED
            .iter()
            .filter_map(|leaf| Some((*leaf, shape_of(&plan.hook(attach::function(*leaf)?)?.bound()?.shape))))
            .collect(),
        points: points::args(&plan),
        members: plan.offsets.members(),
        zap_takes_pfn: points::zap_takes_pfn(&plan),
        gmem_fallocate: plan.targets.gmem_fallocate.unwrap_or(0),
        frames: ram.frames(),
        highest_pfn: ram.highest_pfn(),
        probes: plan.hooks.iter().any(is_probed),
        kvm_vm_release: plan.targets.kvm_vm_release.unwrap_or(0),
        walk_delay: options.walk_delay,
        ledger_limit: options.ledger_limit,
        rings: options.rings,
        log_level: options.log_level,
        latency: options.latency,
    };
    let (pins, replaced) = match Pins::fresh().map_err(AttachError::from)? {
        Some((pins, replaced)) => (Some(pins), replaced),
        None => (None, false),
    };
    let mut kernel = Kernel::load(&settings, Some(&btf), pins)?;
    kernel.attach_releases()?;
    let (latency, mut reactions, mut not_attached) = (options.latency, options.reactions, Vec::new());
    kernel.attach_reactions(&plan, reactions, |reaction, error| {
        match reaction {
            "hold" => reactions.hold = false,
            "cordon" => reactions.cordon = false,
            _ => reactions.panic = false,
        }
        not_attached.push((reaction, error));
    })?;
    // mm_page_alloc is loaded, and attached when a frame comes back too early.
    let tracepoints = plan.hooks.iter().filter(|hook| hook.name.starts_with("mm_")).count();
    let functions =
        kernel.attach_functions(&plan, &btf, latency, |hook, error| not_attached.push((hook, error)))?;
    kernel.begin()?;
    let (hooks, attached) = (plan.hooks.len(), tracepoints + functions);
    let walk = walk::possible(&plan).and_then(|()| Ok(kernel.load_walk(&btf)?)).err();
    let told = noted(&plan, &not_attached);
    kernel.complete(&Note::new(hooks, attached, latency, reactions, told.clone()))?;
    let (plan, taken_over) = (Some(plan), false);
    Ok((
        kernel,
        Opened { hooks, attached, not_attached, taken_over, replaced, latency, reactions, walk, plan, told },
    ))
}

/// Whether a hook is a probe, by the plan.
fn is_probed(hook: &plan::Hook) -> bool {
    hook.bound().is_some_and(|bound| bound.binding == plan::Binding::Kprobe)
}

/// A shape of the plan as the programs take it.
fn shape_of(shape: &PlanShape) -> Shape {
    let at = |role| shape.index(role).map_or(NO_ARGUMENT, u64::from);
    let mut flags = 0;
    if shape.level_unit == Some(LevelUnit::PgLevel) {
        flags |= Shape::PG_LEVEL;
    }
    if shape.page_unit == Some(PageUnit::Pfn) {
        flags |= Shape::PFN;
    }
    Shape {
        td: at(Role::Td),
        vp: at(Role::Vp),
        gpa: at(Role::Gpa),
        level: at(Role::Level),
        page: at(Role::Page),
        ext_err1: at(Role::Err1),
        ext_err2: at(Role::Err2),
        hkid: at(Role::Hkid),
        flags,
    }
}

/// Where the demo's functions have their arguments: `userspace/src/source/demo/module/calls.rs`.
fn demo_shape(leaf: Leaf, kernel: module::Shape) -> Shape {
    const N: u64 = NO_ARGUMENT;
    let new = kernel == module::Shape::V7_3;
    let level = if new { Shape::PG_LEVEL } else { 0 };
    let page = if new { Shape::PFN } else { 0 };
    let at = |td, gpa, level, page, ext_err1, ext_err2| Shape {
        td,
        gpa,
        level,
        page,
        ext_err1,
        ext_err2,
        ..Shape::NONE
    };
    match leaf {
        Leaf::MemPageAdd => Shape { flags: page, ..at(0, 1, N, 2, 4, 5) },
        Leaf::MemPageAug => Shape { flags: page | level, ..at(0, 1, 2, 3, 4, 5) },
        Leaf::MemSeptAdd => Shape { flags: level, ..at(0, 1, 2, 3, 4, 5) },
        Leaf::MemRangeBlock | Leaf::MemPageRemove => Shape { flags: level, ..at(0, 1, 2, N, 3, 4) },
        Leaf::PhymemPageWbinvd => Shape { hkid: 0, page: 1, flags: page, ..Shape::NONE },
        Leaf::PhymemPageReclaim => Shape { page: 0, ..Shape::NONE },
        Leaf::MngCreate => Shape { td: 0, hkid: 1, ..Shape::NONE },
        Leaf::MngAddcx => Shape { td: 0, page: 1, ..Shape::NONE },
        Leaf::VpCreate => Shape { td: 0, vp: 1, ..Shape::NONE },
        Leaf::VpAddcx => Shape { vp: 0, page: 1, ..Shape::NONE },
        _ => Shape { td: 0, ..Shape::NONE },
    }
}
