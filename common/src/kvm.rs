//! What the programs at KVM's own functions are told before they are loaded: where the arguments and members are that
//! they read. See [`crate::config`] for the same of the SEAMCALL wrappers.

/// A function of KVM that has a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Point {
    /// `kvm_make_all_cpus_request`, in which KVM kicks every vCPU of a VM that is bugged or dead out of the guest.
    MakeAllCpusRequest = 0,
    /// `tdx_vm_destroy`
    VmDestroy = 1,
    /// The function that zaps a leaf: `tdx_sept_remove_private_spte`, later `tdx_sept_set_private_spte`.
    Zap = 2,
    /// `kvm_gmem_fallocate`
    Fallocate = 3,
    /// `kvm_gmem_release`
    Release = 4,
    /// `__kvm_gmem_invalidate_start` and its earlier names.
    Invalidate = 5,
    /// `kvm_gmem_error_folio`
    ErrorFolio = 6,
    /// `kvm_gmem_fault_user_mapping`
    FaultUserMapping = 7,
    /// `kvm_gmem_migrate_folio`
    MigrateFolio = 8,
}

/// Points of KVM.
pub const POINTS: usize = 9;

/// Arguments of a point that are read, by position in the function; what each is, the program says that reads them.
pub type PointArgs = [u64; 4];

/// A member of a kernel structure whose offset the programs need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Member {
    /// From a `struct kvm` to the `struct tdx_td` of the same `struct kvm_tdx`.
    KvmTd = 0,
    /// `struct kvm::arch.vm_type`, `unsigned long` or narrower: the lowest byte is read.
    KvmVmType = 1,
    /// `struct kvm::vm_bugged`, `bool`.
    KvmVmBugged = 2,
    /// `struct gmem_file::kvm`, before `struct kvm_gmem::kvm`.
    GmemKvm = 3,
    /// `struct file::f_inode`
    FileInode = 4,
    /// `struct inode::i_ino`
    InodeIno = 5,
    /// `struct folio::mapping`
    FolioMapping = 6,
    /// `struct folio::index`
    FolioIndex = 7,
    /// `struct folio::_refcount`
    FolioRefcount = 8,
    /// `struct address_space::host`
    MappingHost = 9,
    /// `struct vm_fault::page`
    VmFaultPage = 10,
    /// `struct file::f_op`
    FileFOp = 11,
    /// `struct file_operations::fallocate`
    FopFallocate = 12,
    /// `struct file::private_data`
    FilePrivateData = 13,
    /// `struct inode::i_rdev`, `dev_t` of 32 bits.
    InodeIRdev = 14,
    /// `struct file_operations::release`
    FopRelease = 15,
    /// `struct task_struct::tgid`
    TaskTgid = 16,
    /// `struct task_struct::comm`
    TaskComm = 17,
    /// `struct task_struct::cgroups`
    TaskCgroups = 18,
    /// `struct css_set::dfl_cgrp`
    CssSetDflCgrp = 19,
    /// `struct cgroup::kn`
    CgroupKn = 20,
    /// `struct kernfs_node::id`
    KernfsId = 21,
    /// `struct page::private`
    PagePrivate = 22,
    /// From a `struct kvm` to `struct kvm_tdx::state`.
    KvmTdxState = 23,
    /// From a `struct kvm` to `struct kvm_tdx::hkid`.
    KvmTdxHkid = 24,
    /// `struct kvm::arch.tdp_mmu_roots`, the head of the list.
    KvmRoots = 25,
    /// `struct kvm_mmu_page::link`
    MmuPageLink = 26,
    /// `struct kvm_mmu_page::role`, 32 bits.
    MmuPageRole = 27,
    /// `struct kvm_mmu_page::gfn`
    MmuPageGfn = 28,
    /// `struct kvm_mmu_page::spt`
    MmuPageSpt = 29,
    /// `struct kvm_mmu_page::external_spt`
    MmuPageExternalSpt = 30,
    /// First bit of `union kvm_mmu_page_role::level`, which has 4.
    RoleLevel = 31,
    /// Bit of `union kvm_mmu_page_role::is_mirror`.
    RoleIsMirror = 32,
    /// Bit of `union kvm_mmu_page_role::invalid`.
    RoleInvalid = 33,
    /// `struct tdx_td::tdcs_pages`
    TdTdcsPages = 34,
    /// `struct tdx_td::tdcs_nr_pages`
    TdTdcsCount = 35,
    /// `struct tdx_td::tdcx_nr_pages`
    TdTdcxCount = 36,
    /// `struct tdx_vp::tdcx_pages`
    VpTdcxPages = 37,
    /// From a `struct kvm_vcpu` to the `struct tdx_vp` of the same `struct vcpu_tdx`.
    VcpuVp = 38,
    /// From a `struct kvm_vcpu` to `struct vcpu_tdx::state`.
    VcpuState = 39,
    /// `struct kvm::vcpu_array.xa_head`
    KvmVcpus = 40,
    /// `struct xa_node::shift`
    XaNodeShift = 41,
    /// `struct xa_node::slots`
    XaNodeSlots = 42,
    /// Slots of a `struct xa_node`, a power of two.
    XaNodeCount = 43,
}

/// Members that are looked up.
pub const MEMBERS: usize = 44;

/// "This kernel has no such member."
pub const NO_MEMBER: u64 = u64::MAX;

/// `KVM_X86_TDX_VM` (arch/x86/include/uapi/asm/kvm.h).
pub const TDX_VM: u8 = 5;

/// `KVM_REQ_VM_DEAD`, the number of the request without its flags (include/linux/kvm_host.h).
pub const REQ_VM_DEAD: u64 = 1;

/// `SPTE_MMU_PRESENT_MASK` (arch/x86/kvm/mmu/spte.h): an entry of the mirror page table that maps something.
pub const SPTE_PRESENT: u64 = 1 << 11;

/// `PT_PAGE_SIZE_MASK` (arch/x86/kvm/mmu/spte.h): above the lowest level, an entry that maps a page, not a table.
pub const SPTE_LEAF: u64 = 1 << 7;

/// Frame number in an entry of the mirror page table: bits 51:12.
pub const fn spte_to_pfn(spte: u64) -> u64 {
    spte >> 12 & ((1 << 40) - 1)
}

/// What a guest_memfd was asked for when it let go of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GmemOp {
    /// It was not seen letting go.
    None = 0,
    /// fallocate with FALLOC_FL_PUNCH_HOLE.
    Punch = 1,
    /// Its last file was closed.
    Close = 2,
    /// Its inode went later than its last file, or for another reason.
    Evict = 3,
}

impl GmemOp {
    /// From its number on the wire.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Punch,
            2 => Self::Close,
            3 => Self::Evict,
            _ => Self::None,
        }
    }

    /// Name for people and JSON; none where nothing was seen.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Punch => Some("punch-hole"),
            Self::Close => Some("close"),
            Self::Evict => Some("evict"),
        }
    }
}

/// A stage of a VM's life that KVM's own functions tell, not SEAMCALLs. (That it is bugged is a violation.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum VmStage {
    /// KVM gave it up without calling it bugged.
    Dead = 1,
    /// After it was bugged or dead: no vCPU is in the guest any more.
    VcpusOut = 2,
    /// It is being destroyed: its memory slots are gone, its control pages are reclaimed now.
    Destroyed = 3,
}

impl VmStage {
    /// From its number on the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Dead,
            2 => Self::VcpusOut,
            3 => Self::Destroyed,
            _ => return None,
        })
    }

    /// Name for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::VcpusOut => "vcpus-out",
            Self::Destroyed => "destroyed",
        }
    }
}
