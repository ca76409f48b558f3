//! KVM's TDX uAPI that kvm-bindings does not have: `struct kvm_tdx_cmd` and what hangs on it.
//! Source: the kernel's arch/x86/include/uapi/asm/kvm.h.

use std::os::fd::AsRawFd;

use kvm_bindings::{KVMIO, kvm_cpuid_entry2, kvm_pre_fault_memory, kvm_userspace_memory_region2};
use rustix::io::Errno;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_iow_nr, ioctl_iowr_nr};

/// `KVM_X86_TDX_VM`.
pub const VM_TYPE: u64 = 5;

/// Sub-commands of `KVM_MEMORY_ENCRYPT_OP`: `enum kvm_tdx_cmd_id`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Id {
    Capabilities = 0,
    InitVm = 1,
    InitVcpu = 2,
    InitMemRegion = 3,
    FinalizeVm = 4,
}

/// `KVM_TDX_MEASURE_MEMORY_REGION`
pub const MEASURE_MEMORY_REGION: u32 = 1;

#[repr(C)]
struct Command {
    id: u32,
    flags: u32,
    data: u64,
    hw_error: u64,
}

/// How many CPUID entries the tables below hold; KVM wants at least as many as the module has configurable ones.
const ENTRIES: usize = 128;

/// `struct kvm_cpuid2` with room.
#[repr(C)]
pub struct Cpuid {
    pub nent: u32,
    padding: u32,
    pub entries: [kvm_cpuid_entry2; ENTRIES],
}

impl Cpuid {
    fn with(nent: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "at most ENTRIES")]
        let nent = nent as u32;
        Self { nent, padding: 0, entries: [kvm_cpuid_entry2::default(); ENTRIES] }
    }
}

/// `struct kvm_tdx_capabilities`
#[repr(C)]
pub struct Capabilities {
    pub attributes: u64,
    pub xfam: u64,
    tdvmcall: [u64; 4],
    reserved: [u64; 250],
    pub cpuid: Cpuid,
}

/// `struct kvm_tdx_init_vm`
#[repr(C)]
pub struct InitVm {
    pub attributes: u64,
    pub xfam: u64,
    mrconfigid: [u64; 6],
    mrowner: [u64; 6],
    mrownerconfig: [u64; 6],
    reserved: [u64; 12],
    pub cpuid: Cpuid,
}

impl InitVm {
    pub fn new(attributes: u64, xfam: u64, cpuid: &[kvm_cpuid_entry2]) -> Self {
        let mut init = Self {
            attributes,
            xfam,
            mrconfigid: [0; 6],
            mrowner: [0; 6],
            mrownerconfig: [0; 6],
            reserved: [0; 12],
            cpuid: Cpuid::with(cpuid.len().min(ENTRIES)),
        };
        for (entry, given) in init.cpuid.entries.iter_mut().zip(cpuid) {
            *entry = *given;
        }
        init
    }
}

/// `struct kvm_tdx_init_mem_region`
#[repr(C)]
pub struct InitMemRegion {
    pub source: u64,
    pub gpa: u64,
    pub nr_pages: u64,
}

ioctl_iowr_nr!(KVM_MEMORY_ENCRYPT_OP, KVMIO, 0xba, std::os::raw::c_ulong);
ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);
ioctl_iow_nr!(KVM_SET_USER_MEMORY_REGION2, KVMIO, 0x49, kvm_userspace_memory_region2);

/// What KVM said, and the status of the SEAMCALL behind it where it hands that out (else 0).
#[derive(Debug, thiserror::Error)]
#[error("{errno} hw_error={hw_error:#x}")]
pub struct Refused {
    pub errno: Errno,
    pub hw_error: u64,
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// One TDX sub-command on a VM's or VCPU's file, with its data.
pub fn command<T>(file: &impl AsRawFd, id: Id, flags: u32, data: Option<&mut T>) -> Result<(), Refused> {
    let data = data.map_or(0, |data| std::ptr::from_mut(data) as u64);
    let mut command = Command { id: id as u32, flags, data, hw_error: 0 };
    // SAFETY: the command is a valid struct kvm_tdx_cmd, and its data outlives the call.
    let ret = unsafe { ioctl_with_mut_ref(file, KVM_MEMORY_ENCRYPT_OP(), &mut command) };
    if ret < 0 { Err(Refused { errno: last_errno(), hw_error: command.hw_error }) } else { Ok(()) }
}

/// The capabilities of TDX on this host.
pub fn capabilities(vm: &impl AsRawFd) -> Result<Box<Capabilities>, Refused> {
    let mut capabilities = Box::new(Capabilities {
        attributes: 0,
        xfam: 0,
        tdvmcall: [0; 4],
        reserved: [0; 250],
        cpuid: Cpuid::with(ENTRIES),
    });
    command(vm, Id::Capabilities, 0, Some(&mut *capabilities))?;
    Ok(capabilities)
}

/// Faults guest memory in; the range is what is left of it when KVM stops early.
pub fn pre_fault(vcpu: &impl AsRawFd, range: &mut kvm_pre_fault_memory) -> Result<(), Errno> {
    // SAFETY: the range is a valid struct kvm_pre_fault_memory.
    let ret = unsafe { ioctl_with_mut_ref(vcpu, KVM_PRE_FAULT_MEMORY(), range) };
    if ret < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Sets a memory slot with a guest_memfd; a size of 0 deletes it.
pub fn set_memory_region(vm: &impl AsRawFd, region: &kvm_userspace_memory_region2) -> Result<(), Errno> {
    // SAFETY: the region is valid, and its memory stays mapped for as long as the TD lives.
    let ret = unsafe { ioctl_with_ref(vm, KVM_SET_USER_MEMORY_REGION2(), region) };
    if ret < 0 { Err(last_errno()) } else { Ok(()) }
}
