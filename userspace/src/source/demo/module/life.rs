//! The leaves that make and end a TD and its vCPUs, and those that take single pages.

use std::sync::{Arc, Mutex, PoisonError};

use septwatch_common::{Leaf, Level};

use super::pamt::{Meta, PageKind};
use super::status::{self, Refusal, operand};
use super::td::{Life, MIN_TDCS_PAGES, Op, TDVPS_PAGES, Td, Vcpu};
use super::{Given, Module, Registers, SharedTd, lock};

/// HKIDs below are for the host (legacy and MKTME).
pub const FIRST_PRIVATE_HKID: u16 = 32;
/// All HKIDs of this module: more than a CPU has, so that a thousand TDs can be there at once.
pub const HKIDS: u16 = 2_048;

/// State of an HKID in the key ownership table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hkid {
    #[default]
    Free,
    Assigned,
    /// No vCPU uses it; its cache lines are not all written back.
    Flushed,
    /// As before, and TDH.PHYMEM.CACHE.WB was done since.
    WrittenBack,
}

/// What TDH.PHYMEM.PAGE.RECLAIM says besides its status: page type, owner's physical address, size.
pub(super) type Reclaimed = (u64, u64, u64);

fn control(kind: PageKind, owner: u64) -> Meta {
    Meta { kind, owner, gfn: None, size: Level::L4K, entry: Level::L4K, also: None }
}

impl Module {
    /// Takes a control page for a TD.
    fn claim_control(&self, td: &mut Td, pfn: Option<u64>, kind: PageKind) -> Result<u64, Refusal> {
        let pfn = pfn.ok_or(Refusal::new(status::OPERAND_INVALID | operand::RCX))?;
        if !self.pamt.claim(pfn, control(kind, td.tdr)) {
            return status::refuse(status::PAGE_METADATA_INCORRECT | operand::RCX);
        }
        td.children += 1;
        Ok(pfn)
    }

    pub(super) fn mng_create(&self, tdr: Option<u64>, hkid: u16) -> Registers {
        if !(FIRST_PRIVATE_HKID..HKIDS).contains(&hkid) {
            return status::refuse(status::OPERAND_INVALID | operand::RDX);
        }
        let tdr = tdr.ok_or(Refusal::new(status::OPERAND_INVALID | operand::RCX))?;
        let mut hkids = lock(&self.hkids);
        if self.pamt.owned(tdr).is_some() {
            return status::refuse(status::PAGE_METADATA_INCORRECT | operand::RCX);
        }
        if hkids[usize::from(hkid)] != Hkid::Free {
            return status::refuse(status::HKID_NOT_FREE);
        }
        if !self.pamt.claim(tdr, control(PageKind::Tdr, tdr)) {
            return status::refuse(status::PAGE_METADATA_INCORRECT | operand::RCX);
        }
        hkids[usize::from(hkid)] = Hkid::Assigned;
        let mut tds = self.tds.write().unwrap_or_else(PoisonError::into_inner);
        tds.insert(tdr, Arc::new(Mutex::new(Td::new(tdr, hkid))));
        Ok((0, 0))
    }

    pub(super) fn mng_key_config(&self, tdr: Option<u64>) -> Registers {
        let shared = self.td(tdr, operand::RCX)?;
        let td = &mut *lock(&shared);
        if td.life != Life::HkidAssigned {
            return status::refuse(status::LIFECYCLE_STATE_INCORRECT);
        }
        td.life = Life::KeysConfigured;
        Ok((0, 0))
    }

    pub(super) fn mng_addcx(&self, tdr: Option<u64>, pfn: Option<u64>) -> Registers {
        let shared = self.td(tdr, operand::RDX)?;
        let td = &mut *lock(&shared);
        td.check_addcx()?;
        if td.tdcs_pages >= MIN_TDCS_PAGES {
            td.check_state(Leaf::MngAddcx)?;
        }
        self.claim_control(td, pfn, PageKind::Tdcx)?;
        td.tdcs_pages += 1;
        Ok((0, 0))
    }

    pub(super) fn mng_init(&self, tdr: Option<u64>) -> Registers {
        let shared = self.td(tdr, operand::RCX)?;
        let td = &mut *lock(&shared);
        td.check_state(Leaf::MngInit)?;
        td.op = Op::Initialized;
        Ok((0, 0))
    }

    pub(super) fn mr_finalize(&self, tdr: Option<u64>) -> Registers {
        let shared = self.td(tdr, operand::RCX)?;
        let td = &mut *lock(&shared);
        td.check_state(Leaf::MrFinalize)?;
        if !td.vcpus.values().any(|vcpu| vcpu.initialized) {
            return status::refuse(status::NO_VCPUS);
        }
        td.op = Op::Runnable;
        Ok((0, 0))
    }

    pub(super) fn vp_create(&self, tdr: Option<u64>, tdvpr: Option<u64>) -> Registers {
        let shared = self.td(tdr, operand::RDX)?;
        let td = &mut *lock(&shared);
        td.check_state(Leaf::VpCreate)?;
        let tdvpr = self.claim_control(td, tdvpr, PageKind::Tdvpr)?;
        td.vcpus.insert(tdvpr, Vcpu { pages: 1, ..Vcpu::default() });
        Ok((0, 0))
    }

    /// The TD of a vCPU, and the frame of its TDVPR.
    fn vcpu(&self, tdvpr: Option<u64>, id: u64) -> Result<(SharedTd, u64), Refusal> {
        let meta = tdvpr.and_then(|pfn| self.pamt.owned(pfn)).filter(|meta| meta.kind == PageKind::Tdvpr);
        match (tdvpr, meta) {
            (Some(pfn), Some(meta)) => Ok((self.td(Some(meta.owner), operand::TDR)?, pfn)),
            _ => status::refuse(status::PAGE_METADATA_INCORRECT | id),
        }
    }

    pub(super) fn vp_addcx(&self, tdvpr: Option<u64>, pfn: Option<u64>) -> Registers {
        let (td, tdvpr) = self.vcpu(tdvpr, operand::RDX)?;
        let td = &mut *lock(&td);
        td.check_state(Leaf::VpAddcx)?;
        let (pages, initialized) =
            td.vcpus.get(&tdvpr).map_or((0, false), |vcpu| (vcpu.pages, vcpu.initialized));
        if initialized {
            return status::refuse(status::VCPU_STATE_INCORRECT);
        }
        if pages >= TDVPS_PAGES {
            return status::refuse(status::TDCX_NUM_INCORRECT);
        }
        self.claim_control(td, pfn, PageKind::Tdcx)?;
        if let Some(vcpu) = td.vcpus.get_mut(&tdvpr) {
            vcpu.pages += 1;
        }
        Ok((0, 0))
    }

    pub(super) fn vp_init(&self, tdvpr: Option<u64>) -> Registers {
        let (td, tdvpr) = self.vcpu(tdvpr, operand::RCX)?;
        let td = &mut *lock(&td);
        td.check_state(Leaf::VpInit)?;
        match td.vcpus.get_mut(&tdvpr) {
            Some(vcpu) if vcpu.pages < TDVPS_PAGES => status::refuse(status::TDCX_NUM_INCORRECT),
            Some(vcpu) if !vcpu.initialized => {
                (vcpu.initialized, vcpu.associated) = (true, true);
                Ok((0, 0))
            }
            _ => status::refuse(status::VCPU_STATE_INCORRECT),
        }
    }

    pub(super) fn vp_flush(&self, tdvpr: Option<u64>) -> Registers {
        let (td, tdvpr) = self.vcpu(tdvpr, operand::RCX)?;
        let td = &mut *lock(&td);
        td.check_state(Leaf::VpFlush)?;
        match td.vcpus.get_mut(&tdvpr) {
            Some(vcpu) if vcpu.associated => {
                vcpu.associated = false;
                Ok((0, 0))
            }
            _ => status::refuse(status::VCPU_NOT_ASSOCIATED),
        }
    }

    pub(super) fn mng_vpflushdone(&self, tdr: Option<u64>) -> Registers {
        let shared = self.td(tdr, operand::RCX)?;
        let td = &mut *lock(&shared);
        if !matches!(td.life, Life::KeysConfigured | Life::HkidAssigned) {
            return status::refuse(status::LIFECYCLE_STATE_INCORRECT);
        }
        if td.vcpus.values().any(|vcpu| vcpu.associated) {
            return status::refuse(status::FLUSHVP_NOT_DONE);
        }
        td.life = Life::Blocked;
        lock(&self.hkids)[usize::from(td.hkid)] = Hkid::Flushed;
        Ok((0, 0))
    }

    /// TDH.PHYMEM.CACHE.WB for the one package that this machine has.
    pub(super) fn phymem_cache_wb(&self) -> Registers {
        let mut hkids = lock(&self.hkids);
        let mut any = false;
        for (number, state) in (0u16..).zip(hkids.iter_mut()) {
            if matches!(state, Hkid::Flushed | Hkid::WrittenBack) {
                any = true;
                *state = Hkid::WrittenBack;
                self.pamt.all_flushed(number);
            }
        }
        if any { Ok((0, 0)) } else { status::refuse(status::NO_HKID_READY_TO_WBCACHE) }
    }

    pub(super) fn mng_key_freeid(&self, tdr: Option<u64>) -> Registers {
        let shared = self.td(tdr, operand::RCX)?;
        let td = &mut *lock(&shared);
        if td.life != Life::Blocked {
            return status::refuse(status::LIFECYCLE_STATE_INCORRECT);
        }
        let hkid = &mut lock(&self.hkids)[usize::from(td.hkid)];
        if *hkid != Hkid::WrittenBack {
            return status::refuse(status::WBCACHE_NOT_COMPLETE);
        }
        *hkid = Hkid::Free;
        td.life = Life::Teardown;
        Ok((0, 0))
    }

    /// TDH.PHYMEM.PAGE.WBINVD: writes a page's cache lines back that carry this HKID; nobody may own the page.
    pub(super) fn phymem_page_wbinvd(&self, pfn: Option<u64>, hkid: u16, how: Given) -> Registers {
        let pfn = pfn.ok_or(Refusal::new(status::OPERAND_INVALID | operand::RCX))?;
        let pfn = how.pfn(pfn);
        if self.pamt.owned(pfn).is_some() && !how.unchecked() {
            return status::refuse(status::PAGE_METADATA_INCORRECT | operand::RCX);
        }
        self.pamt.flushed(pfn, hkid);
        Ok((0, 0))
    }

    /// TDH.PHYMEM.PAGE.RECLAIM: takes any page from a TD that is in teardown. What it says of the page it says on
    /// failure too, once it found it.
    pub(super) fn phymem_page_reclaim(
        &self,
        pfn: Option<u64>,
        how: Given,
    ) -> (Result<(), Refusal>, Reclaimed) {
        let Some(pfn) = pfn.map(|pfn| how.pfn(pfn)) else {
            return (status::refuse(status::OPERAND_INVALID | operand::RCX), (0, 0, 0));
        };
        let Some(meta) = self.pamt.owned(pfn) else {
            return (status::refuse(status::PAGE_METADATA_INCORRECT | operand::RCX), (0, 0, 0));
        };
        let owner = if meta.kind == PageKind::Tdr { 0 } else { meta.owner << 12 };
        (self.reclaim(pfn, meta, how), (meta.kind as u64, owner, meta.size as u64))
    }

    fn reclaim(&self, pfn: u64, meta: Meta, how: Given) -> Result<(), Refusal> {
        if meta.size.head(pfn) != pfn || (meta.size != Level::L4K && self.pamt.owned(pfn) != Some(meta)) {
            return status::refuse(status::OPERAND_INVALID | operand::RCX);
        }
        let shared = self.td(Some(meta.owner), operand::TDR)?;
        let mut td = lock(&shared);
        if td.life != Life::Teardown && !how.unchecked() {
            return status::refuse(status::LIFECYCLE_STATE_INCORRECT);
        }
        if meta.kind == PageKind::Tdr {
            if td.children != 0 && !how.unchecked() {
                return status::refuse(status::TD_ASSOCIATED_PAGES_EXIST);
            }
            self.pamt.release(pfn);
            drop(td);
            self.tds.write().unwrap_or_else(PoisonError::into_inner).remove(&pfn);
            return Ok(());
        }
        if let Some(gfn) = meta.gfn {
            td.sept.remove(gfn, meta.entry);
        }
        td.children = td.children.saturating_sub(meta.size.frames());
        self.pamt.release(pfn);
        Ok(())
    }
}
