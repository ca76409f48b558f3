//! How a TD ends: its leaves, its key, its S-EPT and control pages, its TDR.

use septwatch_common::Leaf;

use super::{Failed, Host, Outcome, Steps, Td, TdRef, Truth, Vcpu, VmmError, What, done, lock, now_ns};
use crate::source::demo::memory::HostPage;
use crate::source::demo::module::{
    Config, PageKind, TdxTd, TdxVp, status, tdh_mng_key_freeid, tdh_mng_vpflushdone, tdh_phymem_cache_wb,
    tdh_phymem_page_reclaim, tdh_phymem_page_wbinvd_tdr, tdh_vp_flush,
};

/// The kinds of pages that a TD gives back by RECLAIM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlPage {
    /// A control page of a vCPU.
    VcpuTdcx,
    /// The root of a vCPU.
    Tdvpr,
    /// A page of the secure EPT.
    Sept,
    /// A control page of the TD.
    Tdcs,
    /// The root of the TD.
    Tdr,
}

impl ControlPage {
    /// What the module calls it.
    pub const fn kind(self) -> PageKind {
        match self {
            Self::VcpuTdcx | Self::Tdcs => PageKind::Tdcx,
            Self::Tdvpr => PageKind::Tdvpr,
            Self::Sept => PageKind::Sept,
            Self::Tdr => PageKind::Tdr,
        }
    }
}

/// How an end goes wrong, for the first page of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is neither reclaimed nor freed. The TDR cannot be reclaimed then.
    SkipReclaim(ControlPage),
    /// It is freed before it is reclaimed; the RECLAIM follows at once.
    FreeOwned(ControlPage),
}

#[derive(Debug)]
struct Control {
    page: HostPage,
    which: ControlPage,
    gfn: Option<u64>,
    freed: bool,
    failed: Option<Failed>,
}

/// What there is of a TD when its leaves are gone: pages in the order of their reclaim.
#[derive(Debug)]
pub(super) struct Remains {
    id: TdRef,
    td: Box<TdxTd>,
    /// None once it is free.
    hkid: Option<u16>,
    vcpus: Vec<Vcpu>,
    pages: Vec<Control>,
    /// Steps of [`Remains::release_key`] that are done.
    key_steps: usize,
}

impl Td<'_> {
    /// Ends the TD as KVM does: guest_memfd is closed (leaves are zapped, then freed), the HKID is released, every
    /// page is reclaimed and freed, the TDR last. What fails leaks its pages, see [`Host::recover`].
    pub fn teardown(mut self, flaw: Option<Flaw>) -> Result<(), VmmError> {
        let gfns = self.gfns();
        self.zap(gfns.start, gfns.end - gfns.start, Steps::ALL)?;
        let freed = self.leaving(0, self.slots.len())?;
        let at_ns = now_ns();
        let Self { host, id, hkid, td, tdr, tdcs, vcpus, sept, memory, abroad, .. } = self;
        drop(memory);
        let now = now_ns();
        for mut what in freed {
            if let What::Freed { done_ns, .. } = &mut what {
                *done_ns = now;
            }
            host.log.add(Truth { td: id, at_ns, what });
        }
        // A leaf that the stand-in lost goes by RECLAIM with the rest; its page is freed already.
        drop(abroad);
        let control = |page, which| Control { page, which, gfn: None, freed: false, failed: None };
        let mut pages = Vec::new();
        for vcpu in &vcpus {
            pages.extend(vcpu.tdcx.iter().map(|page| control(*page, ControlPage::VcpuTdcx)));
            pages.push(control(vcpu.tdvpr, ControlPage::Tdvpr));
        }
        pages.extend(sept.iter().map(|((_, gfn), sept)| Control {
            gfn: Some(*gfn),
            freed: sept.freed,
            ..control(sept.page, ControlPage::Sept)
        }));
        pages.extend(tdcs.iter().map(|page| control(*page, ControlPage::Tdcs)));
        pages.push(control(tdr, ControlPage::Tdr));
        host.bury(Remains { id, td, hkid: Some(hkid), vcpus, pages, key_steps: 0 }, flaw)
    }
}

impl Host {
    /// Reclaims and frees what ended TDs leaked, and leaves that they lost. Returns how many pages still cannot be
    /// reclaimed.
    pub fn recover(&self) -> Result<usize, VmmError> {
        let leaked = std::mem::take(&mut *lock(&self.leaked));
        for mut remains in leaked {
            if remains.release_key().is_ok() {
                let of = |kind, td| kind == PageKind::Leaf && td == remains.id.tdr;
                for leaf in self.module.owned().iter().filter(|owned| of(owned.kind, owned.td)) {
                    // What cannot be reclaimed keeps the TDR from being reclaimed, and is counted with it.
                    let _ = reclaim(self.module.config(), leaf.pfn);
                }
            }
            self.bury(remains, None)?;
        }
        Ok(lock(&self.leaked).iter().map(|remains| remains.pages.len()).sum())
    }

    fn bury(&self, mut remains: Remains, mut flaw: Option<Flaw>) -> Result<(), VmmError> {
        let released = remains.release_key();
        if released.is_ok() {
            lock(&self.hkids).extend(remains.hkid.take());
        }
        let mut left = Vec::new();
        for mut control in std::mem::take(&mut remains.pages) {
            let flaw = flaw.take_if(
                |flaw| matches!(flaw, Flaw::SkipReclaim(which) | Flaw::FreeOwned(which) if *which == control.which),
            );
            let (kind, gfn) = (control.which.kind(), control.gfn);
            if flaw == Some(Flaw::FreeOwned(control.which)) {
                self.free_control(remains.id, control.page, kind, gfn, None)?;
                control.freed = true;
            }
            let outcome = match flaw {
                Some(Flaw::SkipReclaim(_)) => Err(None),
                _ => released
                    .map_err(Some)
                    .and_then(|()| reclaim(self.module.config(), control.page.pfn).map_err(Some)),
            };
            match outcome {
                Ok(()) => {
                    if control.which == ControlPage::Tdr {
                        // SAFETY: the TD's structure lives in its box.
                        let status = unsafe { tdh_phymem_page_wbinvd_tdr(&raw mut *remains.td) };
                        super::must(Leaf::PhymemPageWbinvd, status)?;
                    }
                    if !control.freed {
                        self.free_control(remains.id, control.page, kind, gfn, control.failed)?;
                    }
                }
                Err(failed) => {
                    let what = What::Leaked { pfn: control.page.pfn, kind, failed };
                    self.log.add(Truth { td: remains.id, at_ns: now_ns(), what });
                    left.push(Control { failed, ..control });
                }
            }
        }
        if !left.is_empty() {
            remains.pages = left;
            lock(&self.leaked).push(remains);
        }
        Ok(())
    }

    /// Frees a page of KVM's own, and writes it down.
    pub(super) fn free_control(
        &self,
        td: TdRef,
        page: HostPage,
        kind: PageKind,
        gfn: Option<u64>,
        after_failed: Option<Failed>,
    ) -> Result<(), VmmError> {
        let state = self.module.frame(page.pfn);
        let at_ns = now_ns();
        lock(&self.pages).free(page)?;
        let what = What::Freed { pfn: page.pfn, kind, gfn, state, after_failed, done_ns: now_ns() };
        self.log.add(Truth { td, at_ns, what });
        Ok(())
    }
}

/// The number of steps until FREEID is done.
const KEY_DONE: usize = 4;

impl Remains {
    /// `tdx_mmu_release_hkid`: flush the vCPUs, write the caches back, free the HKID. Goes on where it failed.
    fn release_key(&mut self) -> Outcome {
        let td = &raw mut *self.td;
        while self.key_steps < KEY_DONE {
            // SAFETY: the structures of the TD and its vCPUs live in their boxes.
            let (leaf, result) = unsafe {
                match self.key_steps {
                    0 => (
                        Leaf::VpFlush,
                        self.vcpus.iter_mut().map(|vcpu| flush(&mut vcpu.vp)).find(|s| *s != 0),
                    ),
                    1 => (Leaf::MngVpflushdone, Some(tdh_mng_vpflushdone(td))),
                    2 => (Leaf::PhymemCacheWb, Some(tdh_phymem_cache_wb(false))),
                    _ => (Leaf::MngKeyFreeid, Some(tdh_mng_key_freeid(td))),
                }
            };
            done(leaf, result.unwrap_or(status::SUCCESS))?;
            self.key_steps += 1;
        }
        Ok(())
    }
}

/// A vCPU that is associated with no logical processor is as good as flushed, to KVM too.
fn flush(vp: &mut TdxVp) -> u64 {
    // SAFETY: a valid structure.
    match unsafe { tdh_vp_flush(vp) } {
        status::VCPU_NOT_ASSOCIATED => status::SUCCESS,
        status => status,
    }
}

fn reclaim(config: &Config, pfn: u64) -> Outcome {
    let (mut kind, mut owner, mut size) = (0, 0, 0);
    // SAFETY: three locals.
    let status =
        unsafe { tdh_phymem_page_reclaim(config.page_of(pfn), &raw mut kind, &raw mut owner, &raw mut size) };
    done(Leaf::PhymemPageReclaim, status)
}
