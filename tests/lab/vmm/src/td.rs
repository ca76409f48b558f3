//! One TD: its VM, VCPU, guest_memfd and the one memory slot at 4 GiB.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process;

use anyhow::{Context as _, Result};
use kvm_bindings::{
    CpuId, KVM_CAP_EXIT_HYPERCALL, KVM_CAP_SPLIT_IRQCHIP, KVM_MEM_GUEST_MEMFD, KVM_MEMORY_ATTRIBUTE_PRIVATE,
    kvm_cpuid_entry2, kvm_create_guest_memfd, kvm_enable_cap, kvm_memory_attributes, kvm_pre_fault_memory,
    kvm_userspace_memory_region2,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::module;
use crate::tdx::{self, Id};

pub const PAGE: u64 = 4096;

/// Where the guest's memory begins.
const BASE: u64 = 1 << 32;

/// A hypercall that KVM hands to userspace: `KVM_HC_MAP_GPA_RANGE`.
pub const MAP_GPA_RANGE: u64 = 12;

/// `TDX_TD_ATTR_SEPT_VE_DISABLE`
const SEPT_VE_DISABLE: u64 = 1 << 28;

/// XFAM that every TD must have: x87 and SSE.
const XFAM: u64 = 3;

/// What a TD is made with.
pub struct Shape {
    /// Size of its memory.
    pub pages: u64,
    /// Pages that are measured in before it is finalized, from its first page on.
    pub init: u64,
    /// Leave it unfinalized: it never becomes runnable.
    pub open: bool,
}

/// A TD. Fields drop in this order: VCPU, VM, guest_memfd, as most VMMs end.
pub struct Td {
    pub vcpu: Option<VcpuFd>,
    pub vm: Option<VmFd>,
    pub gmem: Option<OwnedFd>,
    pages: u64,
    shared: *mut std::ffi::c_void,
    /// The number that the software module gave it.
    pub number: u32,
}

impl Td {
    /// Creates, populates and finalizes a TD.
    ///
    /// # Errors
    /// KVM refuses one of the steps; the error names it.
    pub fn create(shape: &Shape) -> Result<Self> {
        let kvm = Kvm::new().context("cannot open /dev/kvm")?;
        let vm = kvm.create_vm_with_type(tdx::VM_TYPE).context("KVM_CREATE_VM")?;
        let capabilities = tdx::capabilities(&vm).context("KVM_TDX_CAPABILITIES")?;
        enable(&vm, KVM_CAP_SPLIT_IRQCHIP, 24).context("KVM_CAP_SPLIT_IRQCHIP")?;
        enable(&vm, KVM_CAP_EXIT_HYPERCALL, 1 << MAP_GPA_RANGE).context("KVM_CAP_EXIT_HYPERCALL")?;

        let mut init = tdx::InitVm::new(
            capabilities.attributes & SEPT_VE_DISABLE,
            capabilities.xfam & XFAM,
            &[address_widths()],
        );
        tdx::command(&vm, Id::InitVm, 0, Some(&mut init)).context("KVM_TDX_INIT_VM")?;
        let number = module::newest_td(process::id())?.context("the module knows no TD of this process")?;

        let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        vcpu.set_cpuid2(&guest_cpuid(&kvm)?).context("KVM_SET_CPUID2")?;
        tdx::command::<()>(&vcpu, Id::InitVcpu, 0, None).context("KVM_TDX_INIT_VCPU")?;

        let size = shape.pages * PAGE;
        let gmem = vm
            .create_guest_memfd(kvm_create_guest_memfd { size, ..Default::default() })
            .context("KVM_CREATE_GUEST_MEMFD")?;
        // SAFETY: KVM has just made this descriptor, and nobody else has it.
        let gmem = unsafe { OwnedFd::from_raw_fd(gmem) };
        // SAFETY: a new private mapping of its own.
        let shared = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                usize::try_from(size)?,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .context("cannot map the guest's shared memory")?;

        let td =
            Self { vcpu: Some(vcpu), vm: Some(vm), gmem: Some(gmem), pages: shape.pages, shared, number };
        td.set_slot(size).context("KVM_SET_USER_MEMORY_REGION2")?;
        td.convert(0, shape.pages, true).context("KVM_SET_MEMORY_ATTRIBUTES")?;
        if shape.init > 0 {
            td.populate(0, shape.init).context("KVM_TDX_INIT_MEM_REGION")?;
        }
        if !shape.open {
            td.finalize().context("KVM_TDX_FINALIZE_VM")?;
        }
        Ok(td)
    }

    pub const fn pages(&self) -> u64 {
        self.pages
    }

    pub const fn gpa(page: u64) -> u64 {
        BASE + page * PAGE
    }

    fn vm(&self) -> Result<&VmFd, Errno> {
        self.vm.as_ref().ok_or(Errno::BADF)
    }

    fn vcpu(&self) -> Result<&VcpuFd, Errno> {
        self.vcpu.as_ref().ok_or(Errno::BADF)
    }

    /// Ends the building of the TD.
    pub fn finalize(&self) -> Result<(), tdx::Refused> {
        let vm = self.vm().map_err(|errno| tdx::Refused { errno, hw_error: 0 })?;
        tdx::command::<()>(vm, Id::FinalizeVm, 0, None)
    }

    /// Copies zeros into pages of a TD that is not finalized, and measures them.
    pub fn populate(&self, page: u64, count: u64) -> Result<(), tdx::Refused> {
        let vcpu = self.vcpu().map_err(|errno| tdx::Refused { errno, hw_error: 0 })?;
        let source = self.shared as u64 + page * PAGE;
        let mut region = tdx::InitMemRegion { source, gpa: Self::gpa(page), nr_pages: count };
        tdx::command(vcpu, Id::InitMemRegion, tdx::MEASURE_MEMORY_REGION, Some(&mut region))
    }

    /// Faults private pages in without running the guest; how many pages KVM left undone goes with success too.
    pub fn pre_fault(&self, page: u64, count: u64) -> (u64, Result<(), Errno>) {
        let mut range =
            kvm_pre_fault_memory { gpa: Self::gpa(page), size: count * PAGE, ..Default::default() };
        let result = self.vcpu().and_then(|vcpu| tdx::pre_fault(vcpu, &mut range));
        (range.size / PAGE, result)
    }

    /// Tells KVM that pages are private or shared now.
    pub fn convert(&self, page: u64, count: u64, private: bool) -> Result<(), Errno> {
        let attributes = if private { u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE) } else { 0 };
        let range =
            kvm_memory_attributes { address: Self::gpa(page), size: count * PAGE, attributes, flags: 0 };
        self.vm()?.set_memory_attributes(range).map_err(errno)
    }

    /// Gives pages of the guest_memfd back to the host.
    pub fn punch(&self, page: u64, count: u64) -> Result<(), Errno> {
        let gmem = self.gmem.as_ref().ok_or(Errno::BADF)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(gmem, flags, page * PAGE, count * PAGE)
    }

    /// Sets the memory slot, or deletes it with size 0.
    pub fn set_slot(&self, size: u64) -> Result<(), Errno> {
        let gmem = self.gmem.as_ref().ok_or(Errno::BADF)?;
        let region = kvm_userspace_memory_region2 {
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: BASE,
            memory_size: size,
            userspace_addr: self.shared as u64,
            #[expect(clippy::cast_sign_loss, reason = "an open descriptor is not negative")]
            guest_memfd: gmem.as_raw_fd() as u32,
            ..Default::default()
        };
        tdx::set_memory_region(self.vm()?, &region)
    }
}

fn errno(error: kvm_ioctls::Error) -> Errno {
    Errno::from_raw_os_error(error.errno())
}

fn enable(vm: &VmFd, cap: u32, argument: u64) -> Result<(), Errno> {
    let mut enable = kvm_enable_cap { cap, ..Default::default() };
    enable.args[0] = argument;
    vm.enable_cap(&enable).map_err(errno)
}

/// CPUID 0x80000008: 48 bits of guest physical address, which makes GPA bit 47 the SHARED bit.
fn address_widths() -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function: 0x8000_0008, eax: 48 << 16 | 48 << 8 | 46, ..Default::default() }
}

/// KVM's own CPUID, with the x2APIC that TDX needs and an address width that holds the SHARED bit.
fn guest_cpuid(kvm: &Kvm) -> Result<CpuId> {
    let mut cpuid = kvm.get_supported_cpuid(256).context("KVM_GET_SUPPORTED_CPUID")?;
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => entry.ecx |= 1 << 21,
            0x8000_0008 => entry.eax = entry.eax & !0xff | 52,
            _ => {}
        }
    }
    Ok(cpuid)
}
