//! The module held against sequences with known answers.
#![expect(clippy::unwrap_used, reason = "a test ends there")]

use std::sync::{Mutex, MutexGuard};

use super::status::*;
use super::*;

/// There is one module per process: tests that start it take turns.
pub(in crate::source::demo) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const TDR: u64 = 0x1000;
const HKID: u16 = 40;

struct Bench {
    module: Running,
    td: TdxTd,
    vp: TdxVp,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    fn new(shape: Shape) -> Self {
        let turn = turn();
        let config = Config { shape, vmemmap_base: 0xffff_ea00_0000_0000, page_struct_size: 64 };
        let module = Running::start(config).unwrap();
        let td = TdxTd { tdr_page: config.page_of(TDR), tdcs_nr_pages: 0 };
        Self { module, td, vp: TdxVp { tdvpr_page: config.page_of(TDR + 1) }, _turn: turn }
    }

    fn page(&self, pfn: u64) -> u64 {
        self.module.config().page_of(pfn)
    }

    fn owned(&self, pfn: u64) -> Option<Owned> {
        match self.module.frame(pfn) {
            Frame::Owned(owned) => Some(owned),
            _ => None,
        }
    }

    fn level(&self, level: Level) -> i32 {
        self.module.config().level_operand(level)
    }

    fn built() -> Self {
        let mut bench = Self::new(Shape::V7_1);
        bench.build();
        bench
    }

    /// As far as before the first page.
    fn build(&mut self) {
        let mut error = 0;
        // SAFETY: both structures live in `self`.
        unsafe {
            assert_eq!(tdh_mng_create(&raw mut self.td, HKID), SUCCESS);
            assert_eq!(tdh_mng_key_config(&raw mut self.td), SUCCESS);
            for number in 0..u64::from(MIN_TDCS_PAGES) {
                let page = self.page(TDR + 0x10 + number);
                assert_eq!(tdh_mng_addcx(&raw mut self.td, page), SUCCESS);
            }
            assert_eq!(tdh_mng_init(&raw mut self.td, 0, &raw mut error), SUCCESS);
            assert_eq!(tdh_vp_create(&raw mut self.td, &raw mut self.vp), SUCCESS);
            for number in 1..u64::from(TDVPS_PAGES) {
                let page = self.page(TDR + 0x20 + number);
                assert_eq!(tdh_vp_addcx(&raw mut self.vp, page), SUCCESS);
            }
            assert_eq!(tdh_vp_init(&raw mut self.vp, 0, 0), SUCCESS);
        }
    }

    fn tables(&mut self, gfn: u64, pfn: u64) {
        for (level, pfn) in [Level::L512G, Level::L1G, Level::L2M].into_iter().zip(pfn..) {
            assert_eq!(self.sept_add(level.head(gfn), level, pfn).0, SUCCESS);
        }
    }

    fn finalize(&mut self) -> u64 {
        // SAFETY: the structure lives in `self`.
        unsafe { tdh_mr_finalize(&raw mut self.td) }
    }

    fn place(&mut self, call: impl FnOnce(*mut TdxTd, *mut u64, *mut u64) -> u64) -> (u64, u64, u64) {
        let (mut e1, mut e2) = (u64::MAX, u64::MAX);
        (call(&raw mut self.td, &raw mut e1, &raw mut e2), e1, e2)
    }

    fn sept_add(&mut self, gfn: u64, level: Level, pfn: u64) -> (u64, u64, u64) {
        let (level, page) = (self.level(level), self.page(pfn));
        // SAFETY: `place` gives valid pointers.
        self.place(|td, e1, e2| unsafe { tdh_mem_sept_add(td, gfn << 12, level, page, e1, e2) })
    }

    fn add(&mut self, gfn: u64, pfn: u64) -> (u64, u64, u64) {
        let (page, source) = (self.module.config().leaf_operand(pfn), self.page(9));
        // SAFETY: `place` gives valid pointers.
        self.place(|td, e1, e2| unsafe { tdh_mem_page_add(td, gfn << 12, page, source, e1, e2) })
    }

    fn aug(&mut self, gfn: u64, level: Level, pfn: u64) -> (u64, u64, u64) {
        let (level, page) = (self.level(level), self.module.config().leaf_operand(pfn));
        // SAFETY: `place` gives valid pointers.
        self.place(|td, e1, e2| unsafe { tdh_mem_page_aug(td, gfn << 12, level, page, e1, e2) })
    }

    fn block(&mut self, gfn: u64, level: Level) -> (u64, u64, u64) {
        let level = self.level(level);
        // SAFETY: `place` gives valid pointers.
        self.place(|td, e1, e2| unsafe { tdh_mem_range_block(td, gfn << 12, level, e1, e2) })
    }

    fn remove(&mut self, gfn: u64, level: Level) -> (u64, u64, u64) {
        let level = self.level(level).try_into().unwrap();
        // SAFETY: `place` gives valid pointers.
        self.place(|td, e1, e2| unsafe { tdh_mem_page_remove(td, gfn << 12, level, e1, e2) })
    }

    fn track(&mut self) -> u64 {
        // SAFETY: the structure lives in `self`.
        unsafe { tdh_mem_track(&raw mut self.td) }
    }

    fn wbinvd(&self, pfn: u64) -> u64 {
        // SAFETY: no pointers.
        unsafe { tdh_phymem_page_wbinvd_hkid(HKID.into(), self.module.config().leaf_operand(pfn)) }
    }

    fn reclaim(&self, pfn: u64) -> (u64, u64, u64, u64) {
        let (mut kind, mut owner, mut size) = (u64::MAX, u64::MAX, u64::MAX);
        // SAFETY: three locals.
        let status =
            unsafe { tdh_phymem_page_reclaim(self.page(pfn), &raw mut kind, &raw mut owner, &raw mut size) };
        (status, kind, owner, size)
    }

    fn end_key(&mut self) {
        // SAFETY: both structures live in `self`.
        unsafe {
            assert_eq!(tdh_vp_flush(&raw mut self.vp), SUCCESS);
            assert_eq!(tdh_mng_vpflushdone(&raw mut self.td), SUCCESS);
            assert_eq!(tdh_phymem_cache_wb(false), SUCCESS);
            assert_eq!(tdh_mng_key_freeid(&raw mut self.td), SUCCESS);
        }
    }
}

const GFN: u64 = 0x4_0000;
const FREE: u64 = 1 << 63;
const L4K: Level = Level::L4K;

fn leaf(pfn: u64, access: u64) -> u64 {
    FREE | pfn << 12 | 0xF0 | access
}

#[test]
fn a_correct_life_leaves_nothing_owned_in_either_shape() {
    for shape in [Shape::V7_1, Shape::V7_3] {
        let mut bench = Bench::new(shape);
        bench.build();
        bench.tables(GFN, 0x2000);
        assert_eq!(bench.add(GFN, 0x3000), (SUCCESS, 0, 0));
        assert_eq!(bench.add(GFN + 1, 0x3001), (SUCCESS, 0, 0));
        // Before finalize: no TRACK needed, and no BLOCK either.
        assert_eq!(bench.remove(GFN + 1, L4K), (SUCCESS, 0x3001 << 12, 0));
        assert_eq!(bench.wbinvd(0x3001), SUCCESS);
        assert_eq!(bench.finalize(), SUCCESS);
        assert_eq!(bench.aug(GFN + 1, L4K, 0x3001), (SUCCESS, 0, 0));
        let owned = bench.owned(0x3001).unwrap();
        assert_eq!((owned.state, owned.gfn, owned.td), (Some(EntryState::Pending), Some(GFN + 1), TDR));
        assert!(bench.module.guest_accept(TDR, GFN + 1, L4K));
        assert_eq!(bench.aug(GFN + 512, Level::L2M, 0x4000), (SUCCESS, 0, 0));
        for (gfn, level, pfn) in [(GFN, L4K, 0x3000), (GFN + 1, L4K, 0x3001), (GFN + 512, Level::L2M, 0x4000)]
        {
            assert_eq!(bench.block(gfn, level), (SUCCESS, 0, 0));
            assert_eq!(bench.track(), SUCCESS);
            assert_eq!(bench.remove(gfn, level), (SUCCESS, pfn << 12, 0));
            for pfn in pfn..pfn + level.frames() {
                assert!(matches!(bench.module.frame(pfn), Frame::Unflushed { td: TDR, .. }));
                assert_eq!(bench.wbinvd(pfn), SUCCESS);
                assert_eq!(bench.module.frame(pfn), Frame::Free);
            }
        }
        bench.end_key();
        let owned = bench.module.owned();
        assert_eq!(owned.len(), 1 + 4 + 6 + 3);
        let owner = TDR << 12;
        for page in owned.iter().filter(|page| page.kind != PageKind::Tdr) {
            assert_eq!(bench.reclaim(TDR).0, TD_ASSOCIATED_PAGES_EXIST);
            assert_eq!(bench.reclaim(page.pfn), (SUCCESS, page.kind as u64, owner, 0));
        }
        assert_eq!(bench.reclaim(TDR), (SUCCESS, PageKind::Tdr as u64, 0, 0));
        // SAFETY: the structure lives in `bench`.
        assert_eq!(unsafe { tdh_phymem_page_wbinvd_tdr(&raw mut bench.td) }, SUCCESS);
        assert_eq!(bench.module.owned(), []);
    }
}

#[test]
fn mapping_is_refused_for_the_reason_that_is_checked_first() {
    let mut bench = Bench::built();
    assert_eq!(bench.aug(GFN, L4K, 0x3000).0, OP_STATE_INCORRECT | 1);
    assert_eq!(bench.add(GFN, 0x3000), (EPT_WALK_FAILED | 1, FREE, 3));
    bench.tables(GFN, 0x2000);
    assert_eq!(bench.sept_add(GFN, Level::L2M, 0x2005), (EPT_ENTRY_STATE_INCORRECT | 1, 7, 0x401));
    assert_eq!(bench.sept_add(GFN, L4K, 0x2005).0, OPERAND_INVALID | 1);
    assert_eq!(bench.add(GFN, 0x2000), (PAGE_METADATA_INCORRECT | 8, 0, 0));
    assert_eq!(bench.finalize(), SUCCESS);
    assert_eq!(bench.add(GFN, 0x3000).0, OP_STATE_INCORRECT | 2);
    assert_eq!(bench.aug(1 << 35, L4K, 0x3000).0, OPERAND_INVALID | 1, "a shared address");
    assert_eq!(bench.aug(GFN + 1, Level::L2M, 0x4000).0, OPERAND_INVALID | 1, "not aligned");
    assert_eq!(bench.aug(GFN + 512, Level::L1G, 0x4000).0, OPERAND_INVALID | 1, "no 1G by AUG");
    assert_eq!(bench.aug(GFN + 512, Level::L2M, 0x4001).0, OPERAND_INVALID | 8, "frame not aligned");
    assert_eq!(bench.aug(GFN, L4K, 0x3000).0, SUCCESS);
    assert_eq!(bench.aug(GFN, L4K, 0x3001), (EPT_ENTRY_STATE_INCORRECT | 1, leaf(0x3000, 0), 0x200));
    assert_eq!(bench.aug(GFN + 1, L4K, 0x3000), (PAGE_METADATA_INCORRECT | 8, 0, 0));
    assert_eq!(bench.aug(GFN + 512, Level::L2M, 0x3000).0, PAGE_METADATA_INCORRECT | 8);
    assert_eq!(bench.aug(GFN + 512, Level::L2M, 0x4000).0, SUCCESS);
    assert_eq!(bench.aug(GFN + 1, L4K, 0x4005), (PAGE_METADATA_INCORRECT | 8, 0, 0));
    assert_eq!(bench.aug(GFN + 513, L4K, 0x3001).0, EPT_WALK_FAILED | 1);
    bench.td.tdr_page += 64;
    assert_eq!(bench.aug(GFN + 1, L4K, 0x3001).0, PAGE_METADATA_INCORRECT | 2);
    bench.td.tdr_page += 1;
    assert_eq!(bench.track(), PAGE_METADATA_INCORRECT | 1);
}

#[test]
fn a_leaf_leaves_only_by_block_track_remove() {
    let mut bench = Bench::built();
    bench.tables(GFN, 0x2000);
    assert_eq!(bench.add(GFN, 0x3000).0, SUCCESS);
    assert_eq!(bench.track(), OP_STATE_INCORRECT | 1, "before finalize");
    assert_eq!(bench.finalize(), SUCCESS);
    assert_eq!(bench.block(GFN + 1, L4K), (EPT_ENTRY_STATE_INCORRECT | 1, FREE, 0));
    assert_eq!(bench.remove(GFN + 1, L4K), (EPT_ENTRY_STATE_INCORRECT | 1, FREE, 0));
    assert_eq!(bench.remove(GFN, Level::L2M).0, EPT_ENTRY_STATE_INCORRECT | 1, "a table");
    assert_eq!(bench.remove(GFN, L4K), (GPA_RANGE_NOT_BLOCKED | 1, leaf(0x3000, 7), 0x400));
    assert_eq!(bench.wbinvd(0x3000), PAGE_METADATA_INCORRECT | 1, "owned");
    assert_eq!(bench.block(GFN, L4K).0, SUCCESS);
    assert_eq!(bench.block(GFN, L4K), (GPA_RANGE_ALREADY_BLOCKED | 1, leaf(0x3000, 0), 0x100));
    assert_eq!(bench.remove(GFN, L4K), (TLB_TRACKING_NOT_DONE | 1, 0, 0));
    assert_eq!(bench.track(), SUCCESS);
    assert_eq!(bench.remove(GFN, L4K), (SUCCESS, 0x3000 << 12, 0));
    assert_eq!(bench.remove(GFN, L4K).0, EPT_ENTRY_STATE_INCORRECT | 1);
    // The frame may be lent again without a write-back; the ground truth knows it as owned then.
    assert_eq!(bench.aug(GFN + 7, L4K, 0x3000).0, SUCCESS);
    assert!(matches!(bench.module.frame(0x3000), Frame::Owned(_)));
    assert_eq!(bench.block(GFN + 7, L4K).0, SUCCESS);
    let owned = bench.owned(0x3000).unwrap();
    assert_eq!(owned.state, Some(EntryState::PendingBlocked));
    assert_eq!(bench.block(GFN, Level::L2M).0, SUCCESS);
    assert_eq!(bench.aug(GFN, L4K, 0x3005), (EPT_WALK_FAILED | 1, 0, 0x101), "through a blocked table");
}

#[test]
fn lives_of_td_and_vcpu_are_enforced() {
    let mut bench = Bench::new(Shape::V7_1);
    let (td, vp) = (&raw mut bench.td, &raw mut bench.vp);
    let mut error = 0;
    // SAFETY: both structures live in `bench`.
    unsafe {
        assert_eq!(tdh_mng_addcx(td, bench.page(1)), PAGE_METADATA_INCORRECT | 2);
        assert_eq!(tdh_mng_create(td, 31), OPERAND_INVALID | 2);
        assert_eq!(tdh_mng_create(td, HKID), SUCCESS);
        assert_eq!(tdh_mng_create(td, HKID + 1), PAGE_METADATA_INCORRECT | 1);
        let mut other = TdxTd { tdr_page: bench.page(0x5000), tdcs_nr_pages: 0 };
        assert_eq!(tdh_mng_create(&raw mut other, HKID), HKID_NOT_FREE);
        assert_eq!(tdh_mng_addcx(td, bench.page(1)), TD_KEYS_NOT_CONFIGURED);
        assert_eq!(tdh_mng_key_config(td), SUCCESS);
        assert_eq!(tdh_mng_key_config(td), LIFECYCLE_STATE_INCORRECT);
        assert_eq!(tdh_mng_init(td, 0, &raw mut error), TDCS_NOT_ALLOCATED);
        for pfn in 1..=4 {
            assert_eq!(tdh_mng_addcx(td, bench.page(pfn)), SUCCESS);
        }
        assert_eq!(tdh_vp_create(td, vp), OP_STATE_INCORRECT);
        assert_eq!(tdh_mng_init(td, 0, &raw mut error), SUCCESS);
        assert_eq!(tdh_mng_addcx(td, bench.page(5)), OP_STATE_INCORRECT | 1);
        assert_eq!(tdh_mr_finalize(td), NO_VCPUS);
        assert_eq!(tdh_vp_addcx(vp, bench.page(6)), PAGE_METADATA_INCORRECT | 2);
        assert_eq!(tdh_vp_create(td, vp), SUCCESS);
        assert_eq!(tdh_vp_init(vp, 0, 0), TDCX_NUM_INCORRECT);
        for pfn in 6..=10 {
            assert_eq!(tdh_vp_addcx(vp, bench.page(pfn)), SUCCESS);
        }
        assert_eq!(tdh_vp_addcx(vp, bench.page(11)), TDCX_NUM_INCORRECT);
        assert_eq!(tdh_vp_init(vp, 0, 0), SUCCESS);
        assert_eq!(tdh_vp_init(vp, 0, 0), VCPU_STATE_INCORRECT);
        assert_eq!(tdh_mr_finalize(td), SUCCESS);
        assert_eq!(bench.reclaim(1), (LIFECYCLE_STATE_INCORRECT, 5, TDR << 12, 0));
        assert_eq!(bench.reclaim(0x7777), (PAGE_METADATA_INCORRECT | 1, 0, 0, 0));
        assert_eq!(tdh_mng_key_freeid(td), LIFECYCLE_STATE_INCORRECT);
        assert_eq!(tdh_mng_vpflushdone(td), FLUSHVP_NOT_DONE);
        assert_eq!(tdh_phymem_cache_wb(false), NO_HKID_READY_TO_WBCACHE);
        assert_eq!(tdh_vp_flush(vp), SUCCESS);
        assert_eq!(tdh_vp_flush(vp), VCPU_NOT_ASSOCIATED);
        assert_eq!(tdh_mng_vpflushdone(td), SUCCESS);
        assert_eq!(tdh_mng_key_freeid(td), WBCACHE_NOT_COMPLETE);
        assert_eq!(tdh_phymem_cache_wb(false), SUCCESS);
        assert_eq!(tdh_mng_key_freeid(td), SUCCESS);
        assert_eq!(tdh_mem_track(td), TD_KEYS_NOT_CONFIGURED);
        assert_eq!(tdh_mng_create(&raw mut other, HKID), SUCCESS, "the HKID is free again");
    }
}

#[test]
fn faults_strike_where_told_and_as_often() {
    let mut bench = Bench::built();
    bench.tables(GFN, 0x2000);
    assert_eq!(bench.finalize(), SUCCESS);
    for number in 0..4 {
        assert_eq!(bench.aug(GFN + number, L4K, 0x3000 + number).0, SUCCESS);
    }
    let busy = OPERAND_BUSY | 1;
    let fault = Fault::next(Leaf::MemRangeBlock, Action::Fail(busy)).of_td(TDR).of_page(GFN + 1);
    bench.module.inject(Fault { skip: 1, ..fault.times(2) });
    assert_eq!(bench.block(GFN, L4K).0, SUCCESS, "another page");
    assert_eq!(bench.block(GFN + 1, L4K).0, SUCCESS, "skipped");
    assert_eq!(bench.block(GFN + 1, L4K), (busy, leaf(0x3001, 0), 0x300));
    assert_eq!(bench.block(GFN + 1, L4K).0, busy);
    assert_eq!(bench.block(GFN + 1, L4K).0, GPA_RANGE_ALREADY_BLOCKED | 1, "used up");
    bench.module.inject(Fault::next(Leaf::MemPageRemove, Action::Lie));
    assert_eq!(bench.remove(GFN + 3, L4K), (SUCCESS, 0, 0));
    assert!(matches!(bench.module.frame(0x3003), Frame::Owned(_)), "it lied");
    bench.module.inject(Fault::next(Leaf::MemPageRemove, Action::Unchecked));
    assert_eq!(bench.remove(GFN + 3, L4K).0, SUCCESS);
    assert!(matches!(bench.module.frame(0x3003), Frame::Unflushed { .. }));
    bench.module.inject(Fault::next(Leaf::MemRangeBlock, Action::WrongPage(GFN + 2)).of_page(GFN + 3));
    assert_eq!(bench.block(GFN + 3, L4K).0, SUCCESS);
    assert_eq!(bench.block(GFN + 2, L4K).0, GPA_RANGE_ALREADY_BLOCKED | 1);
    bench.module.inject(Fault::next(Leaf::MemPageAug, Action::Unchecked));
    assert_eq!(bench.aug(GFN + 5, L4K, 0x3000).0, SUCCESS);
    assert_eq!(bench.module.leaves(TDR).iter().filter(|leaf| leaf.2 == 0x3000).count(), 2);
    bench.module.inject(Fault::next(Leaf::MemTrack, Action::Lie));
    bench.module.clear_faults();
    assert_eq!(bench.track(), SUCCESS);
    assert_eq!(bench.remove(GFN + 1, L4K).0, SUCCESS);
}

#[test]
fn there_is_one_module_and_its_functions_are_apart() {
    let bench = Bench::new(Shape::V7_3);
    let config = *bench.module.config();
    assert!(matches!(Running::start(config), Err(StartError::Running)));
    drop(bench);
    let mut td = TdxTd { tdr_page: 0, tdcs_nr_pages: 0 };
    {
        let _turn = turn();
        // SAFETY: a local.
        assert_eq!(unsafe { tdh_mem_track(&raw mut td) }, VMFAILINVALID);
        let config = Config { page_struct_size: 0, ..config };
        assert!(matches!(Running::start(config), Err(StartError::PageStructSize)));
    }
    let mut addresses = addresses().map(|(_, address)| address);
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] >= 32), "none is folded into another");
}
