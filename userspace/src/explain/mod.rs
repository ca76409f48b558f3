//! Status words and kernel log lines in plain words.
//!
//! Flow: [`words`] (what a person types) and [`log`] (what a kernel prints) give a [`Call`] or a [`Warning`];
//! [`table`] knows what the module and KVM mean by it; what comes out is an [`Explanation`], which [`text`] writes
//! for people and serde for programs. Nothing in here reads files or touches the kernel.

mod entry;
mod feed;
pub mod log;
pub mod table;
mod text;
mod warning;
pub mod words;

use septwatch_common::{Leaf, Status, leaf, status::Class};
use serde::Serialize;

pub use feed::Feed;
pub use log::{Call, Registers, Warning};

/// What there is to say of one word or line.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Explanation {
    /// Of a SEAMCALL's status.
    Status(Box<StatusWords>),
    /// Of a WARN splat.
    Warning(WarningWords),
    /// Of an HKID that was not given back.
    HkidLeaked(LeakWords),
}

/// A status word, and where known its leaf and registers.
#[derive(Clone, Debug, Serialize)]
pub struct StatusWords {
    /// The word in hexadecimal.
    pub word: String,
    /// The name; `None` if no table has the word.
    pub name: Option<&'static str>,
    /// The word as one writes it, with name and operand.
    pub shown: String,
    /// Which of the flags 63:60 are set.
    pub flags: Vec<&'static str>,
    /// Bits 47:40, with their meaning; `None` for a status that is not the module's.
    pub class: Option<String>,
    /// The operand, where the status has one.
    pub operand: Option<String>,
    /// The leaf, with its number, where known.
    pub leaf: Option<String>,
    /// What the leaf is for.
    pub leaf_does: Option<&'static str>,
    /// What RCX and RDX say: the S-EPT entry, or why there is none.
    pub registers: Vec<String>,
    /// What the status means at the leaf; at each leaf that returns it where the leaf is not known.
    pub readings: Vec<Reading>,
    /// The violations that may follow, on whatever kernel; [`Next`] has them for each.
    pub may_follow: Vec<&'static str>,
    /// What to look at.
    pub look_at: Vec<String>,
}

/// What a status means at one leaf, and what KVM then does.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    /// The leaf; `None` for what holds at any leaf.
    pub leaf: Option<&'static str>,
    /// When the module answers so.
    pub means: Option<&'static str>,
    /// What KVM does next.
    pub kvm: Vec<Next>,
    /// Where this is from.
    pub source: String,
}

/// What KVM does, on which kernels.
#[derive(Clone, Debug, Serialize)]
pub struct Next {
    /// Which kernels; empty for all.
    pub kernels: &'static str,
    /// What it does.
    pub does: &'static str,
    /// The violations that may follow there, in the order in which they would.
    pub may_follow: &'static [&'static str],
    /// The kernel function.
    pub source: &'static str,
}

/// A WARN of the kernel's TDX code.
#[derive(Clone, Debug, Serialize)]
pub struct WarningWords {
    /// The source file and line.
    pub at: String,
    /// The function.
    pub function: Option<String>,
    /// What the function does.
    pub does: Option<&'static str>,
    /// The leaves it calls: one of them failed.
    pub leaves: Vec<&'static str>,
    /// What the WARN means for the VM.
    pub means: String,
    /// The violations that may follow.
    pub may_follow: Vec<&'static str>,
    /// What to look at.
    pub look_at: Vec<String>,
}

/// An HKID that was not given back.
#[derive(Clone, Debug, Serialize)]
pub struct LeakWords {
    /// The HKID.
    pub hkid: u64,
    /// The leaf that failed.
    pub leaf: Option<&'static str>,
    /// What it means.
    pub means: &'static str,
    /// The violations that this is.
    pub may_follow: Vec<&'static str>,
    /// What to look at.
    pub look_at: Vec<String>,
}

/// Explains a SEAMCALL's status.
pub fn status(call: &Call) -> StatusWords {
    let status = call.status;
    let number = call.leaf.and_then(leaf::number_in);
    let known = number.and_then(|number| Leaf::from_number(number.into()));
    let seamldr = call.leaf.is_some() && number.is_none();
    let readings = if seamldr { vec![SEAMLDR.clone()] } else { readings(call, known) };
    let rows = || known.and_then(table::row).map(|row| row.outcomes(status)).into_iter().flatten();
    StatusWords {
        word: format!("0x{:016x}", status.0),
        name: status.name().filter(|_| !seamldr),
        shown: if seamldr {
            format!("0x{:016x}, a status of the P-SEAMLDR", status.0)
        } else {
            status.to_string()
        },
        flags: if seamldr { Vec::new() } else { flags(status) },
        class: (!seamldr).then(|| status.class().to_string()),
        operand: status.operand().filter(|_| !seamldr).map(|operand| operand.to_string()),
        leaf: leaf_shown(call, number),
        leaf_does: known.and_then(table::row).map(|row| row.does),
        registers: entry::registers(call, known),
        may_follow: in_order(rows().flat_map(|outcome| outcome.may_follow.iter().copied())),
        look_at: look_at(
            status,
            known,
            readings.iter().any(|reading| !reading.kvm.is_empty()),
            rows().any(|outcome| !outcome.may_follow.is_empty()),
        ),
        readings,
    }
}

const SEAMLDR: Reading = Reading {
    leaf: None,
    means: Some("the call went to the P-SEAMLDR, which loads TDX modules; its statuses are not the module's"),
    kvm: Vec::new(),
    source: String::new(),
};

/// With a leaf its own reading; without, the readings of all leaves that name the status, or the common one.
fn readings(call: &Call, known: Option<Leaf>) -> Vec<Reading> {
    let status = call.status;
    let in_general = || status.name().and_then(|_| table::class_means(status.class()));
    let reading = |row: &'static table::Row| Reading {
        leaf: Some(row.leaf.name()),
        means: row.answer(status).map(|answer| answer.means).or_else(in_general),
        kvm: row.outcomes(status).map(next).collect(),
        source: format!("TDX module, {}", row.handler),
    };
    let common = || {
        let means = table::common(status).map(|answer| answer.means).or_else(in_general);
        Reading { leaf: known.map(Leaf::name), means, kvm: Vec::new(), source: String::new() }
    };
    if let Some(leaf) = known {
        return vec![table::row(leaf).map_or_else(common, reading)];
    }
    let mut all: Vec<_> = table::rows().filter(|row| row.names(status)).map(reading).collect();
    // A leaf that no kernel issues has no reading but the common one.
    if call.leaf.is_some() || call.unknown_leaf.is_some() {
        all.clear();
    }
    if all.is_empty() || table::common(status).is_some() {
        all.insert(0, common());
    }
    all
}

fn next(outcome: &'static table::Outcome) -> Next {
    Next {
        kernels: outcome.kernels,
        does: outcome.kvm,
        may_follow: outcome.may_follow,
        source: outcome.source,
    }
}

fn leaf_shown(call: &Call, number: Option<u16>) -> Option<String> {
    let named = |number: u16| match leaf::name_of(number) {
        Some(name) if Leaf::from_number(number.into()).is_none() => {
            format!("{name} ({number}), which no kernel up to 7.3 issues")
        }
        Some(name) => format!("{name} ({number})"),
        None => format!("{number}, no leaf of the ABI"),
    };
    let seamldr = || call.leaf.map(|rax| format!("P-SEAMLDR leaf {}", rax & !(1 << 63)));
    let unknown = || call.unknown_leaf.as_ref().map(|name| format!("{name}, no leaf of the ABI"));
    number.map(named).or_else(seamldr).or_else(unknown)
}

fn flags(status: Status) -> Vec<&'static str> {
    let flags = [
        (status.is_error(), "error"),
        (status.is_non_recoverable(), "non-recoverable"),
        (status.is_fatal(), "fatal"),
        (status.has_host_recoverability_hint(), "host may recover"),
    ];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
}

/// Without repetitions, in the order of the first mention.
fn in_order(names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut all = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn look_at(status: Status, leaf: Option<Leaf>, several: bool, trouble: bool) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |text: &str| all.push(text.to_owned());
    if leaf.is_none() && several {
        say(
            "the leaf that answered so: with --leaf N or --leaf NAME the reading for it, and what KVM does next",
        );
    }
    if status.class() == Class::SOFTWARE {
        say(
            "the lines of virt/tdx in the kernel log: is TDX enabled by the firmware, and is a module loaded?",
        );
    }
    if !trouble {
        return all;
    }
    match leaf {
        Some(Leaf::MemRangeBlock | Leaf::MemTrack | Leaf::MemPageRemove | Leaf::PhymemPageWbinvd) => {
            say(
                "septwatch's zap-failed event for this TD: it has the pfn, and says whether and when the frame was \
                 freed, and who got it",
            );
            say(
                "the WARN before this line: its stack says which path zapped (conversion, punch, memslot, exit)",
            );
            say(
                "a bugged VM fails in silence: KVM prints the first failure of a VM only, and each WARN once a boot",
            );
        }
        Some(
            Leaf::PhymemPageReclaim
            | Leaf::MngVpflushdone
            | Leaf::MngKeyFreeid
            | Leaf::PhymemCacheWb
            | Leaf::VpFlush,
        ) => {
            say(
                "the first failure of this TD, earlier in the log: a teardown fails because of what failed before it",
            );
        }
        _ if status.name() == Some("TDX_PAGE_METADATA_INCORRECT") => {
            say(
                "the earlier freed-while-… event for the same pfn: it names the TD that still owns the page, and \
                 the zap that failed",
            );
        }
        _ => say("septwatch's map-failed event for this TD, and the WARN before this line"),
    }
    all
}

/// Explains a WARN of the kernel's TDX code.
pub fn warning(warning: &Warning) -> WarningWords {
    let function = warning.function.as_deref().and_then(warning::find);
    let leaves = function.map(|function| function.leaves).unwrap_or_default();
    let outcomes = leaves.iter().filter_map(|leaf| table::row(*leaf)).flat_map(|row| row.outcomes);
    let failures = outcomes.filter(|outcome| outcome.on == table::On::Failure);
    let may_follow = in_order(failures.flat_map(|outcome| outcome.may_follow.iter().copied()));
    // RECLAIM and CACHE.WB warn without a VM to mark: TDX_BUG_ON(…, NULL).
    let bugged = if leaves.is_empty() || may_follow.contains(&"vm-bugged") {
        "; KVM marks the VM bugged: its ioctls return -EIO from here on, but fallocate and close of its guest_memfd still \
         free memory"
    } else {
        ""
    };
    WarningWords {
        at: format!("{}:{}", warning.file, warning.line),
        function: warning.function.clone(),
        does: function.map(|function| function.does),
        leaves: leaves.iter().map(|leaf| leaf.name()).collect(),
        means: format!("a SEAMCALL failed, or a check of KVM's own (KVM_BUG_ON){bugged}"),
        may_follow,
        look_at: vec![
            "the line \"SEAMCALL … failed\" that follows the splat: it has the leaf and the status".into(),
            "whether the line is missing: then no SEAMCALL failed, but a check of KVM's own".into(),
        ],
    }
}

/// Explains an HKID that was not given back.
pub fn hkid_leaked(leaf: u16, hkid: u64) -> LeakWords {
    LeakWords {
        hkid,
        leaf: leaf::name_of(leaf),
        means: "the TD's key could not be ended: none of its S-EPT and control pages can be reclaimed, KVM keeps them \
                all, and the HKID is not used again until the next boot",
        may_follow: vec!["teardown-leak"],
        look_at: vec!["the line \"SEAMCALL … failed\" before it, and the first failure of this TD".into()],
    }
}
