//! What userspace tells the programs before they are loaded: read-only globals, constants to the verifier.

use aya_ebpf::{Global, helpers};
use septwatch_common::Leaf;
use septwatch_common::config::{NO_ARGUMENT, SHAPES, Shape};
use septwatch_common::kvm::{MEMBERS, Member, NO_MEMBER, POINTS, Point, PointArgs};

/// Address of the first `struct page`.
#[unsafe(no_mangle)]
static VMEMMAP_BASE: Global<u64> = Global::new(0);
/// log2 of the size of `struct page`, or 0xff where it is no power of two.
#[unsafe(no_mangle)]
static PAGE_STRUCT_SHIFT: Global<u64> = Global::new(6);
/// Size of `struct page` in bytes.
#[unsafe(no_mangle)]
static PAGE_STRUCT_SIZE: Global<u64> = Global::new(64);
/// Offset of `tdr_page` in `struct tdx_td`.
#[unsafe(no_mangle)]
static TDR_PAGE: Global<u64> = Global::new(0);
/// Offset of `tdvpr_page` in `struct tdx_vp`.
#[unsafe(no_mangle)]
static TDVPR_PAGE: Global<u64> = Global::new(0);
/// 1: the pointers of the observed functions are a process' (the demo), not the kernel's.
#[unsafe(no_mangle)]
static USER_MEMORY: Global<u64> = Global::new(0);
/// See `septwatch_common::zap::TdNow::premap_exempt`.
#[unsafe(no_mangle)]
static PREMAP_EXEMPT: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static SEAMCALL_SHAPES: [Shape; SHAPES] = [Shape::NONE; SHAPES];

#[unsafe(no_mangle)]
static POINT_ARGS: [PointArgs; POINTS] = [[NO_ARGUMENT; 4]; POINTS];

#[unsafe(no_mangle)]
static MEMBER_OFFSETS: [u64; MEMBERS] = [NO_MEMBER; MEMBERS];
/// 1: the zapping function is given the frame itself, not the entry of the mirror page table.
#[unsafe(no_mangle)]
static ZAP_TAKES_PFN: Global<u64> = Global::new(0);

/// Address of `kvm_gmem_fallocate`; 0 where it is not known.
#[unsafe(no_mangle)]
static GMEM_FALLOCATE: Global<u64> = Global::new(0);

#[inline(always)]
pub fn gmem_fallocate() -> u64 {
    GMEM_FALLOCATE.load()
}

/// Address of `kvm_vm_release`; 0 where it is not known.
#[unsafe(no_mangle)]
static KVM_VM_RELEASE: Global<u64> = Global::new(0);

#[inline(always)]
pub fn kvm_vm_release() -> u64 {
    KVM_VM_RELEASE.load()
}

/// How long a walk waits between its two looks at a frame, in turns of a loop: for tests.
#[unsafe(no_mangle)]
static WALK_DELAY: Global<u32> = Global::new(0);

#[inline(always)]
pub fn walk_delay() -> u32 {
    WALK_DELAY.load()
}

/// 1: somebody wants to know how long SEAMCALLs take.
#[unsafe(no_mangle)]
static LATENCY: Global<u64> = Global::new(0);

#[inline(always)]
pub fn latency() -> bool {
    LATENCY.load() != 0
}

/// Whether the observed functions are a process': their pointers are not unique.
#[inline(always)]
pub fn user_memory() -> bool {
    USER_MEMORY.load() != 0
}

#[inline(always)]
pub fn premap_exempt() -> bool {
    PREMAP_EXEMPT.load() != 0
}

#[inline(always)]
pub fn tdr_page_offset() -> u64 {
    TDR_PAGE.load()
}

#[inline(always)]
pub fn tdvpr_page_offset() -> u64 {
    TDVPR_PAGE.load()
}

/// What is at `field` of the shape of a leaf's function: `offset_of!(Shape, td)`.
#[inline(always)]
pub fn shape(leaf: Leaf, field: usize) -> u64 {
    let shape = &raw const SEAMCALL_SHAPES[leaf as usize];
    // SAFETY: in bounds, a leaf's number is below SHAPES; volatile, because userspace sets it before the load.
    unsafe { shape.byte_add(field).cast::<u64>().read_volatile() }
}

#[inline(always)]
pub fn zap_takes_pfn() -> bool {
    ZAP_TAKES_PFN.load() != 0
}

/// Position of an argument of a point that the program there reads; [`NO_ARGUMENT`]: this kernel does not pass it.
#[inline(always)]
pub fn point_arg(point: Point, n: usize) -> u64 {
    let position = &raw const POINT_ARGS[point as usize][n];
    // SAFETY: in bounds; volatile, because userspace sets it before the load.
    unsafe { position.read_volatile() }
}

/// Address of a member of a structure; `None` where this kernel has no such member.
#[inline(always)]
pub fn member(base: u64, member: Member) -> Option<u64> {
    let offset = &raw const MEMBER_OFFSETS[member as usize];
    // SAFETY: in bounds; volatile, because userspace sets it before the load.
    match unsafe { offset.read_volatile() } {
        NO_MEMBER => None,
        offset => Some(base.wrapping_add(offset)),
    }
}

/// The offset itself.
#[inline(always)]
pub fn member_value(of: Member) -> Option<u32> {
    member(0, of).map(|offset| offset as u32)
}

/// Reads from the kernel's memory.
#[inline(always)]
pub fn read_kernel<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address; every caller asks for a plain number.
    unsafe { helpers::bpf_probe_read_kernel(address as *const T) }.ok()
}

/// Reads a pointer or a number of 8 bytes that a member holds.
#[inline(always)]
pub fn word(base: u64, wanted: Member) -> Option<u64> {
    read_kernel(member(base, wanted)?)
}

/// The frame of a `struct page`.
#[inline(always)]
pub fn pfn_of(page: u64) -> u64 {
    let offset = page.wrapping_sub(VMEMMAP_BASE.load());
    match PAGE_STRUCT_SHIFT.load() {
        0xff => offset.checked_div(PAGE_STRUCT_SIZE.load()).unwrap_or(0),
        shift => offset >> shift,
    }
}

/// The `struct page` of a frame.
#[inline(always)]
pub fn page_of(pfn: u64) -> u64 {
    VMEMMAP_BASE.load().wrapping_add(pfn.wrapping_mul(PAGE_STRUCT_SIZE.load()))
}

/// Reads a word that the observed function's arguments point to.
#[inline(always)]
pub fn read_word(address: u64) -> Option<u64> {
    let at = address as *const u64;
    // SAFETY: the helpers check the address.
    let word = unsafe {
        if user_memory() { helpers::bpf_probe_read_user(at) } else { helpers::bpf_probe_read_kernel(at) }
    };
    word.ok()
}
