//! A TDX module in software, inside this process.
//!
//! It keeps the order of SEAMCALLs, the ownership of pages and the status codes as the real one does, for real frames
//! whose contents it never touches. Its functions ([`addresses`]) are named and shaped like the kernel's `tdh_*` wrappers
//! in `arch/x86/virt/vmx/tdx/tdx.c`. It can be told to fail or to lie ([`Fault`]), and knows at any time what is owned
//! ([`Running::owned`]). There is one per process, as there is one per host.

mod calls;
mod faults;
mod life;
mod mem;
mod pamt;
mod sept;
pub mod status;
mod td;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use septwatch_common::{Leaf, Level};
use serde::{Deserialize, Serialize};

pub use calls::*;
pub use faults::{Action, Fault};
pub use life::{FIRST_PRIVATE_HKID, HKIDS};
pub use pamt::PageKind;
pub use sept::EntryState;
pub use td::{MIN_TDCS_PAGES, TDVPS_PAGES};

use faults::Faults;
use life::Hkid;
use pamt::{Pamt, Record};
use status::{Refusal, operand};
use td::Td;

use crate::locked::lock;

/// RCX and RDX of a call that was done, or why not.
type Registers = Result<(u64, u64), Refusal>;

/// Which kernel's operands the `tdh_*` functions take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// Linux 6.16 to 7.1: pages as `struct page *`, levels in the module's numbering (4 KiB = 0).
    V7_1,
    /// Linux 7.3: PAGE.ADD, PAGE.AUG and PAGE.WBINVD take a frame number, levels are `enum pg_level` (4 KiB = 1).
    V7_3,
}

/// How operands are read. A `struct page *` is never followed, only computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Which kernel to be like.
    pub shape: Shape,
    /// Address of the `struct page` of frame 0.
    pub vmemmap_base: u64,
    /// `sizeof(struct page)`, in bytes; not 0.
    pub page_struct_size: u64,
}

impl Config {
    /// The `struct page *` of a frame.
    pub const fn page_of(&self, pfn: u64) -> u64 {
        self.vmemmap_base.wrapping_add(pfn.wrapping_mul(self.page_struct_size))
    }

    /// The frame of a `struct page *`; none if it points into the middle of one or below the first.
    pub const fn pfn_of(&self, page: u64) -> Option<u64> {
        match page.checked_sub(self.vmemmap_base) {
            Some(offset) if offset.is_multiple_of(self.page_struct_size) => {
                offset.checked_div(self.page_struct_size)
            }
            _ => None,
        }
    }

    /// A frame as PAGE.ADD, PAGE.AUG and PAGE.WBINVD take it.
    pub const fn leaf_operand(&self, pfn: u64) -> u64 {
        match self.shape {
            Shape::V7_1 => self.page_of(pfn),
            Shape::V7_3 => pfn,
        }
    }

    const fn leaf_pfn(&self, raw: u64) -> Option<u64> {
        match self.shape {
            Shape::V7_1 => self.pfn_of(raw),
            Shape::V7_3 => Some(raw),
        }
    }

    /// A level as the functions take it.
    pub const fn level_operand(&self, level: Level) -> i32 {
        match self.shape {
            Shape::V7_1 => level as i32,
            Shape::V7_3 => level as i32 + 1,
        }
    }

    const fn level_of(&self, raw: u64) -> Option<Level> {
        match self.shape {
            Shape::V7_1 => Level::from_tdx(raw),
            Shape::V7_3 => Level::from_pg_level(raw),
        }
    }
}

/// How a call is to be done: well, or as a fault rule says.
#[derive(Clone, Copy)]
struct Given(Option<Action>);

impl Given {
    fn unchecked(self) -> bool {
        self.0 == Some(Action::Unchecked)
    }

    fn gpa(self, gpa: u64) -> u64 {
        match self.0 {
            Some(Action::WrongPage(gfn)) => gfn << 12,
            _ => gpa,
        }
    }

    fn pfn(self, pfn: u64) -> u64 {
        match self.0 {
            Some(Action::WrongPage(other)) => other,
            _ => pfn,
        }
    }
}

type SharedTd = Arc<Mutex<Td>>;

#[derive(Debug)]
struct Module {
    config: Config,
    pamt: Pamt,
    /// By the frame of the TDR.
    tds: RwLock<HashMap<u64, SharedTd>>,
    hkids: Mutex<[Hkid; HKIDS as usize]>,
    faults: Faults,
}

impl Module {
    fn td(&self, tdr: Option<u64>, id: u64) -> Result<SharedTd, Refusal> {
        let tds = self.tds.read().unwrap_or_else(PoisonError::into_inner);
        tdr.and_then(|tdr| tds.get(&tdr).cloned()).ok_or(Refusal::new(status::PAGE_METADATA_INCORRECT | id))
    }

    fn frame(&self, pfn: u64) -> Frame {
        let meta = match self.pamt.lookup(pfn) {
            None => return Frame::Free,
            Some(Record::Unflushed { owner, gfn, .. }) => return Frame::Unflushed { td: owner, gfn },
            Some(Record::Owned(meta)) => meta,
        };
        let state = meta.gfn.and_then(|gfn| {
            let td = self.td(Some(meta.owner), operand::RDX).ok()?;
            let entry = lock(&td).sept.get(gfn, meta.entry)?;
            Some(entry.state)
        });
        Frame::Owned(Owned { pfn, kind: meta.kind, td: meta.owner, gfn: meta.gfn, level: meta.size, state })
    }
}

/// An owned page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Its (first) frame.
    pub pfn: u64,
    /// What it is.
    pub kind: PageKind,
    /// Frame of the owner's TDR.
    pub td: u64,
    /// First guest frame that it serves, for leaves and S-EPT pages.
    pub gfn: Option<u64>,
    /// Its size.
    pub level: Level,
    /// State of its S-EPT entry, for leaves and S-EPT pages.
    pub state: Option<EntryState>,
}

/// What a frame is to the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing.
    Free,
    /// Given back by REMOVE, its cache lines not yet written back.
    Unflushed {
        /// Frame of the former owner's TDR.
        td: u64,
        /// The guest frame that it was.
        gfn: Option<u64>,
    },
    /// Owned.
    Owned(Owned),
}

static CURRENT: RwLock<Option<Arc<Module>>> = RwLock::new(None);

/// Why the module did not start.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StartError {
    /// There is one module per process.
    #[error("the software TDX module runs already in this process")]
    Running,
    /// The operand shape makes no sense.
    #[error("sizeof(struct page) must not be 0")]
    PageStructSize,
}

/// The running module; it ends, and forgets everything, with this value.
#[derive(Debug)]
pub struct Running(Arc<Module>);

impl Running {
    /// Starts the module.
    pub fn start(config: Config) -> Result<Self, StartError> {
        if config.page_struct_size == 0 {
            return Err(StartError::PageStructSize);
        }
        let mut current = CURRENT.write().unwrap_or_else(PoisonError::into_inner);
        if current.is_some() {
            return Err(StartError::Running);
        }
        let module = Arc::new(Module {
            config,
            pamt: Pamt::new(),
            tds: RwLock::default(),
            hkids: Mutex::new([Hkid::Free; HKIDS as usize]),
            faults: Faults::default(),
        });
        *current = Some(Arc::clone(&module));
        Ok(Self(module))
    }

    /// How it reads operands.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Adds a fault rule. Of several that match a call, the one that came first decides, even if it only skips.
    pub fn inject(&self, fault: Fault) {
        self.0.faults.add(fault);
    }

    /// Drops all fault rules.
    pub fn clear_faults(&self) {
        self.0.faults.clear();
    }

    /// The truth about one frame.
    pub fn frame(&self, pfn: u64) -> Frame {
        self.0.frame(pfn)
    }

    /// All pages that the module owns, by frame.
    pub fn owned(&self) -> Vec<Owned> {
        let mut all: Vec<_> = self
            .0
            .pamt
            .all_owned()
            .into_iter()
            .filter_map(|(pfn, _)| match self.0.frame(pfn) {
                Frame::Owned(owned) => Some(owned),
                _ => None,
            })
            .collect();
        all.sort_unstable_by_key(|owned| owned.pfn);
        all
    }

    /// The leaves that a TD maps: guest frame, size, frame. More than [`Running::owned`] shows of it only when the
    /// module was told to map a frame twice.
    pub fn leaves(&self, tdr: u64) -> Vec<(u64, Level, u64)> {
        let Ok(td) = self.0.td(Some(tdr), operand::RDX) else { return Vec::new() };
        let mut leaves: Vec<_> =
            lock(&td).sept.leaves().map(|(level, gfn, entry)| (gfn, level, entry.pfn)).collect();
        leaves.sort_unstable_by_key(|leaf| leaf.0);
        leaves
    }

    /// The guest accepts a PENDING page (TDG.MEM.PAGE.ACCEPT). Returns whether it was PENDING.
    pub fn guest_accept(&self, tdr: u64, gfn: u64, level: Level) -> bool {
        self.0.guest_accept(tdr, gfn, level)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Does one SEAMCALL: finds the module, obeys the fault rules, else runs `work`. `place` is where a forced failure
/// finds the S-EPT entry that some statuses report.
fn seamcall(
    leaf: Leaf,
    td: impl FnOnce(&Config) -> Option<u64>,
    place: impl FnOnce(&Config) -> (Option<u64>, Option<Level>),
    work: impl FnOnce(&Module, Option<u64>, Option<Level>, Given) -> Registers,
) -> (u64, u64, u64) {
    let current = CURRENT.read().unwrap_or_else(PoisonError::into_inner);
    let Some(module) = current.as_deref() else { return (status::VMFAILINVALID, 0, 0) };
    let (td, (page, level)) = (td(&module.config), place(&module.config));
    let action = module.faults.take(leaf, td, page);
    let result = match action {
        Some(Action::Lie) => Ok((0, 0)),
        Some(Action::Fail(status)) => Err(module.forced(status, td, page, level)),
        other => work(module, td, level, Given(other)),
    };
    match result {
        Ok((rcx, rdx)) => (status::SUCCESS, rcx, rdx),
        Err(Refusal { status, ext_err1, ext_err2 }) => (status, ext_err1, ext_err2),
    }
}

impl Module {
    fn forced(&self, status: u64, td: Option<u64>, gfn: Option<u64>, level: Option<Level>) -> Refusal {
        let details = || {
            let td = self.td(td, operand::RDX).ok()?;
            Some(lock(&td).sept.walk_far(gfn?, level?).details())
        };
        let (ext_err1, ext_err2) =
            if status::has_entry_details(status) { details().unwrap_or_default() } else { (0, 0) };
        Refusal { status, ext_err1, ext_err2 }
    }
}
