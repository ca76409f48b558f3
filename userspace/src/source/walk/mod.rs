//! TDs that ran before the hooks were attached: they are found by the open files of all processes, what is lent to them is
//! entered into the ledger from KVM's own structures, and can be compared with it at any time. The programs in the kernel
//! do it (ebpf/src/walk), one bounded step for each call from here; why that is right while the TD runs is in
//! `septwatch_common::tracker::walk`.

pub mod audit;
mod beside;
pub mod compare;
pub mod maps;
pub mod pace;
pub mod resync;
pub mod schedule;
mod verify;

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::{Array, HashMap, Map, MapData};
use septwatch_common::{
    Line, Suspect, Td,
    config::CHUNK,
    walk::{Difference, Ended, Found, MAX_DIFFERENCES, MAX_FOUND, Mode, Told},
};
use thiserror::Error;

use super::kernel::{KernelError, TdPod, map_error};
use crate::hooks::{
    attach::{self, AttachError, Attached},
    bpf::{self, BpfError},
    load::LoadError,
    lock::{LockError, Turns},
    pins::Pins,
    plan::Plan,
};
use maps::{AskedPod, DifferencesPod, FoundPod, ToldPod};

pub use maps::Maps;

/// Maps that others need as well.
pub(super) const LEDGER: &str = "LEDGER";
pub(super) const TDS: &str = "TDS";

/// TDs that run already cannot be taken over, or not be compared.
#[derive(Debug, Error)]
pub enum WalkError {
    /// A structure of KVM is not as it was in every kernel that is known.
    #[error("the types of this kernel have no {}", .0.join(", no "))]
    Members(Vec<&'static str>),
    /// Which file is a VM cannot be told.
    #[error(
        "the address of kvm_vm_release is not known: kvm is not loaded, or /proc/kallsyms hides addresses (kernel.kptr_restrict, CAP_SYSLOG)"
    )]
    NoRelease,
    /// No ledger runs here.
    #[error("no ledger runs on this host: `septwatch watch` or `septwatch agent` begins one")]
    NoLedger,
    /// The programs that run were attached without those that walk.
    #[error(
        "the programs that run are without those that walk TDs: when they were attached, this kernel did not have what that needs; `septwatch doctor` says what"
    )]
    NotLoaded,
    /// The kernel does not say when all that was under way is over.
    #[error("membarrier(MEMBARRIER_CMD_GLOBAL): {0}; a kernel with nohz_full has none")]
    Barrier(io::Error),
    /// More VMs than there is room for.
    #[error("{0} files of TDs are open on this host; {MAX_FOUND} can be told of")]
    Many(u64),
    /// A program cannot be run.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// A program cannot be had.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A map cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Nobody can be kept from running them at the same time.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No more descriptors.
    #[error("no descriptor: {0}")]
    Descriptor(io::Error),
}

/// Whether a kernel of this plan has what walking TDs needs.
///
/// # Errors
/// What it does not have.
pub fn possible(plan: &Plan) -> Result<(), WalkError> {
    let missing = plan.offsets.missing_for_walk();
    if !missing.is_empty() {
        return Err(WalkError::Members(missing));
    }
    plan.targets.kvm_vm_release.map(drop).ok_or(WalkError::NoRelease)
}

/// Waits until every map and zap that had begun, maybe before its hooks were attached, is over: KVM makes each inside of an
/// `rcu_read_lock()`, and this is a `synchronize_rcu()` (kernel/sched/membarrier.c).
///
/// # Errors
/// This kernel does not wait.
pub fn settle() -> Result<(), WalkError> {
    membarrier(BARRIER_GLOBAL).map(drop)
}

/// Whether this kernel waits so.
///
/// # Errors
/// It does not.
pub fn waits() -> Result<(), WalkError> {
    if membarrier(BARRIER_QUERY)? & BARRIER_GLOBAL != 0 {
        return Ok(());
    }
    Err(WalkError::Barrier(io::Error::from_raw_os_error(libc::EINVAL)))
}

/// Commands of membarrier(2).
const BARRIER_QUERY: libc::c_long = 0;
const BARRIER_GLOBAL: libc::c_long = 1;

fn membarrier(command: libc::c_long) -> Result<libc::c_long, WalkError> {
    // SAFETY: three numbers.
    match unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } {
        -1 => Err(WalkError::Barrier(io::Error::last_os_error())),
        answer => Ok(answer),
    }
}

/// What a step looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// 512 guest frames from this on: leaves, and the S-EPT pages that lead there.
    Mirror(u64),
    /// Control pages: 0 those of the TD itself, from 1 on those of a vCPU.
    Control(u64),
    /// Lines of this chunk of the ledger that the mirror should have; they are only compared.
    Lines(u64),
}

/// Runs the programs.
pub struct Walker {
    find: OwnedFd,
    mirror: OwnedFd,
    control: OwnedFd,
    lines: OwnedFd,
    mark: OwnedFd,
    asked: Array<MapData, AskedPod>,
    found: Array<MapData, FoundPod>,
    told: Array<MapData, ToldPod>,
    differences: Array<MapData, DifferencesPod>,
    ledger: HashMap<MapData, u64, [u64; CHUNK]>,
    tds: Array<MapData, TdPod>,
    turns: Turns,
}

impl Walker {
    /// Of programs that this process has attached or taken over.
    pub(super) fn of(attached: &Attached, maps: &Maps) -> Result<Self, WalkError> {
        let own = |name: &str| {
            let program = attached.loaded(name).ok_or(WalkError::NotLoaded)?;
            program.try_clone_to_owned().map_err(WalkError::Descriptor)
        };
        let [mirror, control, lines, mark] = attach::WALK;
        Ok(Self {
            find: own(attach::WALK_FIND)?,
            mirror: own(mirror)?,
            control: own(control)?,
            lines: own(lines)?,
            mark: own(mark)?,
            asked: maps.typed(maps::ASKED)?,
            found: maps.typed(maps::FOUND)?,
            told: maps.typed(maps::TOLD)?,
            differences: maps.typed(maps::DIFFERENCES)?,
            ledger: maps.typed(LEDGER)?,
            tds: maps.typed(TDS)?,
            turns: Turns::open()?,
        })
    }

    /// Of programs that run on this host, whoever has attached them: they are pinned.
    ///
    /// # Errors
    /// There are none, or they are without those that walk.
    pub fn left() -> Result<Self, WalkError> {
        let (pins, _) = Pins::left().ok_or(WalkError::NoLedger)?;
        let mut open = |name: &str| Map::from_map_data(MapData::from_pin(pins.map_path(name)).ok()?).ok();
        let mut maps = Maps::of(&mut open)?;
        for name in [LEDGER, TDS] {
            maps.add(name, &open(name).ok_or(LoadError::Missing(name)).map_err(KernelError::from)?)?;
        }
        let mut attached = Attached::left(pins)?;
        let walker = Self::of(&attached, &maps);
        // They are not ours to remove.
        attached.leave();
        walker
    }

    /// VMs that run TDs, each once. With `enter`, those that the ledger does not know are entered.
    ///
    /// # Errors
    /// The programs cannot be run.
    pub fn find(&mut self, enter: bool) -> Result<Vec<Found>, WalkError> {
        let _turn = self.turns.take()?;
        let asked = AskedPod { enter: u64::from(enter), found: 0 };
        self.asked.set(0, asked, 0).map_err(map_error(maps::ASKED))?;
        bpf::iterate(self.find.as_fd())?;
        let count = self.asked.get(&0, 0).map_err(map_error(maps::ASKED))?.found;
        if count > u64::from(MAX_FOUND) {
            return Err(WalkError::Many(count));
        }
        let each = (0..count as u32).map(|at| Ok(self.found.get(&at, 0)?.0));
        let mut found: Vec<_> = each.collect::<Result<_, _>>().map_err(map_error(maps::FOUND))?;
        found.sort_unstable_by_key(|found| found.kvm);
        found.dedup_by_key(|found| found.kvm);
        Ok(found)
    }

    /// One step, and what differs.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn step(
        &mut self,
        td: &Found,
        mode: Mode,
        at: At,
    ) -> Result<(Ended, Told, Vec<Difference>), WalkError> {
        let (program, at) = match at {
            At::Mirror(gfn) => (&self.mirror, gfn),
            At::Control(which) => (&self.control, which),
            At::Lines(key) => (&self.lines, key),
        };
        let _turn = self.turns.take()?;
        let ended = bpf::run(program.as_fd(), &[td.kvm, td_of(td), mode as u64, at])?;
        let told = self.told.get(&0, 0).map_err(map_error(maps::TOLD))?.0;
        let mut differences = Vec::new();
        if told.differ != 0 {
            let all = self.differences.get(&0, 0).map_err(map_error(maps::DIFFERENCES))?;
            differences.extend_from_slice(&all.0[..(told.differ as usize).min(MAX_DIFFERENCES)]);
        }
        Ok((Ended::from_number(ended), told, differences))
    }

    /// Takes reasons for doubt away from a TD, and adds others. False: the TD is over.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn mark(&mut self, td: &Found, gone: Suspect, new: Suspect) -> Result<bool, WalkError> {
        let reasons = u64::from(gone.0) | u64::from(new.0) << 32;
        let _turn = self.turns.take()?;
        Ok(bpf::run(self.mark.as_fd(), &[td.kvm, td_of(td), 0, reasons])? != 0)
    }

    /// A TD's record.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn record(&self, td: &Found) -> Result<Td, WalkError> {
        let record = self.tds.get(&td.td, 0).map_err(map_error(TDS))?;
        Ok(record.0)
    }

    /// Keys of the ledger's chunks, in no order; one that comes or goes meanwhile may be left out.
    pub fn chunks(&self) -> impl Iterator<Item = u64> {
        self.ledger.keys().filter_map(Result::ok)
    }

    /// The lines of a chunk that are open.
    pub fn open_lines(&self, key: u64) -> Vec<(u64, Line)> {
        let Ok(lines) = self.ledger.get(&key, 0) else { return Vec::new() };
        let first = key * CHUNK as u64;
        let lines = (first..).zip(lines).map(|(pfn, line)| (pfn, Line(line)));
        lines.filter(|(_, line)| line.is_lent()).collect()
    }
}

/// A TD as an argument: its index, and its number above it.
fn td_of(td: &Found) -> u64 {
    u64::from(td.td) | u64::from(td.id) << 32
}
