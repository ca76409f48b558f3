//! How a TD comes into being, and how it gets pages.

use std::collections::BTreeMap;

use septwatch_common::{Leaf, Level};

use super::{FIRST_GFN, Host, Outcome, SeptPage, Slot, Td, TdRef, Vcpu, VmmError, What, done, lock, must};
use crate::source::demo::memory::Memory;
use crate::source::demo::module::{
    Action, Fault, MIN_TDCS_PAGES, PageKind, TDVPS_PAGES, TdxTd, TdxVp, status, tdh_mem_page_add,
    tdh_mem_page_aug, tdh_mem_sept_add, tdh_mng_addcx, tdh_mng_create, tdh_mng_init, tdh_mng_key_config,
    tdh_mr_finalize, tdh_vp_addcx, tdh_vp_create, tdh_vp_init,
};

/// A vCPU faults again as long as AUG says BUSY (`RET_PF_RETRY`); this often is for ever.
const FAULT_RETRIES: u32 = 16;

impl<'h> Td<'h> {
    /// A TD with `vcpus` vCPUs (at least one) and room for `pages` pages of private memory, none there yet:
    /// KVM_TDX_INIT_VM and KVM_TDX_INIT_VCPU.
    pub fn create(host: &'h Host, pages: usize, vcpus: usize) -> Result<Self, VmmError> {
        Self::create_numbered(host, host.next_index(), pages, vcpus)
    }

    /// As [`Td::create`], for those who number their TDs themselves.
    pub fn create_numbered(host: &'h Host, index: u32, pages: usize, vcpus: usize) -> Result<Self, VmmError> {
        let memory = Memory::new(pages)?;
        let config = *host.module.config();
        let hkid = lock(&host.hkids).pop().ok_or(VmmError::NoHkid)?;
        let tdr = host.get_page()?;
        let mut td = Box::new(TdxTd { tdr_page: config.page_of(tdr.pfn), tdcs_nr_pages: 0 });
        let pointer = &raw mut *td;
        let mut tdcs = Vec::new();
        let mut error = 0;
        // SAFETY: `td` lives in its box until the TD is buried; `error` is a local.
        unsafe {
            must(Leaf::MngCreate, tdh_mng_create(pointer, hkid))?;
            must(Leaf::MngKeyConfig, tdh_mng_key_config(pointer))?;
            for _ in 0..MIN_TDCS_PAGES {
                let page = host.get_page()?;
                must(Leaf::MngAddcx, tdh_mng_addcx(pointer, config.page_of(page.pfn)))?;
                tdcs.push(page);
            }
            must(Leaf::MngInit, tdh_mng_init(pointer, 0, &raw mut error))?;
        }
        let mut td = Self {
            host,
            id: TdRef { index, tdr: tdr.pfn },
            hkid,
            td,
            tdr,
            tdcs,
            vcpus: Vec::new(),
            sept: BTreeMap::new(),
            memory,
            slots: vec![Slot::Empty; pages],
            finalized: false,
            bugged: None,
            abroad: Vec::new(),
        };
        for _ in 0..vcpus.max(1) {
            td.add_vcpu()?;
        }
        Ok(td)
    }

    fn add_vcpu(&mut self) -> Result<(), VmmError> {
        let config = *self.config();
        let tdvpr = self.host.get_page()?;
        let mut vp = Box::new(TdxVp { tdvpr_page: config.page_of(tdvpr.pfn) });
        let pointer = &raw mut *vp;
        let mut tdcx = Vec::new();
        let number = self.vcpus.len() as u32;
        // SAFETY: `vp` lives in its box until the TD is buried, and so does the TD's structure.
        unsafe {
            must(Leaf::VpCreate, tdh_vp_create(self.pointer(), pointer))?;
            for _ in 1..TDVPS_PAGES {
                let page = self.host.get_page()?;
                must(Leaf::VpAddcx, tdh_vp_addcx(pointer, config.page_of(page.pfn)))?;
                tdcx.push(page);
            }
            must(Leaf::VpInit, tdh_vp_init(pointer, 0, number))?;
        }
        self.vcpus.push(Vcpu { vp, tdvpr, tdcx });
        Ok(())
    }

    /// Adds an initial page (KVM_TDX_INIT_MEM_REGION). Returns its frame.
    pub fn add(&mut self, gfn: u64) -> Result<Outcome<u64>, VmmError> {
        let index = self.index(gfn)?;
        let pfn = self.present(gfn)?;
        if let Err(failed) = self.tables(gfn)? {
            return Ok(Err(failed));
        }
        let source = self.host.get_page()?;
        let (config, td) = (*self.config(), self.pointer());
        let (page, source_page) = (config.leaf_operand(pfn), config.page_of(source.pfn));
        let (mut e1, mut e2) = (0, 0);
        // SAFETY: the TD's structure and two locals.
        let outcome = self.host.once_more(Leaf::MemPageAdd, || unsafe {
            tdh_mem_page_add(td, gfn << 12, page, source_page, &raw mut e1, &raw mut e2)
        });
        // The source is the VMM's own memory: the module never had it.
        lock(&self.host.pages).free(source)?;
        Ok(self.mapped(gfn, Level::L4K, pfn, outcome).map(|()| {
            self.slots[index] = Slot::Mapped(pfn);
            pfn
        }))
    }

    /// Ends the building (KVM_TDX_FINALIZE_VM): from now on pages come by faults, and leave only after TRACK.
    pub fn finalize(&mut self) -> Result<(), VmmError> {
        // SAFETY: the TD's structure.
        must(Leaf::MrFinalize, unsafe { tdh_mr_finalize(self.pointer()) })?;
        self.finalized = true;
        Ok(())
    }

    /// The guest touches a page that is not mapped: KVM maps it, the guest accepts it. Returns its frame.
    pub fn fault(&mut self, gfn: u64) -> Result<Outcome<u64>, VmmError> {
        let index = self.index(gfn)?;
        let pfn = self.present(gfn)?;
        if let Err(failed) = self.tables(gfn)? {
            return Ok(Err(failed));
        }
        let outcome = self.aug(gfn, pfn);
        Ok(self.mapped(gfn, Level::L4K, pfn, outcome).map(|()| {
            self.host.module.guest_accept(self.id.tdr, gfn, Level::L4K);
            self.slots[index] = Slot::Mapped(pfn);
            pfn
        }))
    }

    /// Has the module map a frame a second time, for which it is told to forget to check. `first` is where the
    /// frame is mapped already. The new mapping goes by a zap without WBINVD ([`super::Steps`]): the frame is
    /// in use.
    pub fn map_again(&mut self, gfn: u64, pfn: u64, first: (TdRef, u64)) -> Result<Outcome, VmmError> {
        let index = self.index(gfn)?;
        if self.slots[index] != Slot::Empty {
            return Err(VmmError::Page { gfn, needed: "empty" });
        }
        if let Err(failed) = self.tables(gfn)? {
            return Ok(Err(failed));
        }
        let fault = Fault::next(Leaf::MemPageAug, Action::Unchecked);
        self.host.module.inject(fault.of_td(self.id.tdr).of_page(gfn));
        let outcome = self.aug(gfn, pfn);
        Ok(self.mapped(gfn, Level::L4K, pfn, outcome).map(|()| {
            self.record(super::now_ns(), What::DoubleMap { pfn, gfn, first });
            self.slots[index] = Slot::Alias(pfn);
        }))
    }

    /// Frees the S-EPT page that maps the 2 MiB around a guest frame, while it is in use. Returns its frame.
    pub fn free_sept_page(&mut self, gfn: u64) -> Result<u64, VmmError> {
        let head = Level::L2M.head(gfn);
        let sept = self.sept.get_mut(&(Level::L2M, head)).filter(|sept| !sept.freed);
        let sept = sept.ok_or(VmmError::Page { gfn, needed: "under an S-EPT page" })?;
        sept.freed = true;
        let page = sept.page;
        self.host.free_control(self.id, page, PageKind::Sept, Some(head), None)?;
        Ok(page.pfn)
    }

    /// The page of a guest frame that is to be mapped, brought in if it is not there, and where it was if it is.
    fn present(&mut self, gfn: u64) -> Result<u64, VmmError> {
        let index = self.index(gfn)?;
        match self.slots[index] {
            Slot::Empty => {
                let pfn = self.memory.touch(index)?;
                self.slots[index] = Slot::Present(pfn);
                Ok(pfn)
            }
            Slot::Present(pfn) | Slot::Stranded(pfn, _) => {
                self.memory.verify(index, pfn)?;
                Ok(pfn)
            }
            Slot::Mapped(_) | Slot::Alias(_) => Err(VmmError::Page { gfn, needed: "unmapped" }),
        }
    }

    /// Writes down and passes on what came of giving a page to the module.
    fn mapped(&mut self, gfn: u64, level: Level, pfn: u64, outcome: Outcome) -> Outcome {
        if let Err(failed) = outcome {
            self.record(failed.at_ns, What::MapFailed { gfn, level, pfn, failed });
            self.bug(failed);
        }
        outcome
    }

    fn aug(&mut self, gfn: u64, pfn: u64) -> Outcome {
        let (td, page) = (self.pointer(), self.config().leaf_operand(pfn));
        let level = self.config().level_operand(Level::L4K);
        let (mut e1, mut e2) = (0, 0);
        let mut result = 0;
        for _ in 0..FAULT_RETRIES {
            // SAFETY: the TD's structure and two locals.
            result = unsafe { tdh_mem_page_aug(td, gfn << 12, level, page, &raw mut e1, &raw mut e2) };
            if !status::is_busy(result) {
                break;
            }
            self.host.log.count_busy();
        }
        done(Leaf::MemPageAug, result)
    }

    /// The S-EPT pages above a 4 KiB leaf, from the top.
    fn tables(&mut self, gfn: u64) -> Result<Outcome, VmmError> {
        for at in [Level::L512G, Level::L1G, Level::L2M] {
            let head = at.head(gfn);
            if self.sept.contains_key(&(at, head)) {
                continue;
            }
            let sept = self.host.get_page()?;
            let (td, page) = (self.pointer(), self.config().page_of(sept.pfn));
            let level = self.config().level_operand(at);
            let (mut e1, mut e2) = (0, 0);
            // SAFETY: the TD's structure and two locals.
            let outcome = self.host.once_more(Leaf::MemSeptAdd, || unsafe {
                tdh_mem_sept_add(td, head << 12, level, page, &raw mut e1, &raw mut e2)
            });
            if let Err(failed) = self.mapped(head, at, sept.pfn, outcome) {
                self.host.free_control(self.id, sept, PageKind::Sept, Some(head), Some(failed))?;
                return Ok(Err(failed));
            }
            self.sept.insert((at, head), SeptPage { page: sept, freed: false });
        }
        Ok(Ok(()))
    }
}

const _: () = assert!(FIRST_GFN.is_multiple_of(Level::L1G.frames()));
