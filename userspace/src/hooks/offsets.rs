//! Where the members lie that the programs read, from BTF. None: this kernel has no such member, or its part of
//! the kernel has no BTF here; programs that need it do without what it tells.

use septwatch_common::kvm::{MEMBERS, Member, NO_MEMBER};
use serde::Serialize;

use super::btf::{Btf, BtfError, KernelBtf, Module};

/// `(field of Offsets, part of the kernel, [(structure, path), …])`: the first that exists counts.
macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident: $module:ident [$(($name:literal, $path:literal)),+];)*) => {
        /// Offsets in bytes; sizes of structures in bytes.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Offsets {
            /// `sizeof(struct page)`
            pub struct_page_size: Option<u32>,
            $($(#[$doc])* pub $field: Option<u32>,)*
        }

        impl Offsets {
            /// Structures whose members are looked up.
            pub const STRUCTURES: &[&str] = &["page", $($($name),+),*];

            /// Members looked up: structure and path.
            pub const PATHS: &[(&str, &str)] = &[$($(($name, $path)),+),*];

            /// Looks all of them up.
            ///
            /// # Errors
            /// [`BtfError`] where the BTF is not sound there.
            pub fn resolve(kernel: &KernelBtf) -> Result<Self, BtfError> {
                Ok(Self {
                    struct_page_size: kernel.vmlinux.size_of("page"),
                    $($field: first(kernel.part(Module::$module), &[$(($name, $path)),+])?,)*
                })
            }

            /// Name and value of each, in the order of the structure.
            pub fn list(&self) -> Vec<(&'static str, Option<u32>)> {
                vec![("struct_page_size", self.struct_page_size), $((stringify!($field), self.$field)),*]
            }
        }
    };
}

offsets! {
    /// `struct tdx_td::tdr_page`, `struct page *`: the TD's identity.
    tdx_td_tdr_page: Vmlinux [("tdx_td", "tdr_page")];
    /// `struct tdx_vp::tdvpr_page`, `struct page *`.
    tdx_vp_tdvpr_page: Vmlinux [("tdx_vp", "tdvpr_page")];
    /// `struct kvm_tdx::td`: from a VM to the TD that SEAMCALLs name.
    kvm_tdx_td: KvmIntel [("kvm_tdx", "td")];
    /// `struct kvm_tdx::kvm`.
    kvm_tdx_kvm: KvmIntel [("kvm_tdx", "kvm")];
    /// `struct kvm_tdx::nr_premapped`: this kernel only counts pages before finalize.
    kvm_tdx_nr_premapped: KvmIntel [("kvm_tdx", "nr_premapped")];
    /// `struct kvm::arch`.
    kvm_arch: Kvm [("kvm", "arch")];
    /// `struct kvm_arch::vm_type`: whether a VM is of type TDX.
    kvm_arch_vm_type: Kvm [("kvm_arch", "vm_type")];
    /// `struct kvm::vm_bugged`, `bool`.
    kvm_vm_bugged: Kvm [("kvm", "vm_bugged")];
    /// `struct kvm_gmem::kvm`, later `struct gmem_file::kvm`.
    gmem_kvm: Kvm [("gmem_file", "kvm"), ("kvm_gmem", "kvm")];
    /// `struct file::f_inode`.
    file_f_inode: Vmlinux [("file", "f_inode")];
    /// `struct inode::i_ino`.
    inode_i_ino: Vmlinux [("inode", "i_ino")];
    /// `struct folio::mapping`, `struct address_space *`.
    folio_mapping: Vmlinux [("folio", "mapping")];
    /// `struct folio::index`: in its file, in pages.
    folio_index: Vmlinux [("folio", "index")];
    /// `struct folio::_refcount`: references still held when it leaves its file.
    folio_refcount: Vmlinux [("folio", "_refcount")];
    /// `struct address_space::host`, `struct inode *`.
    address_space_host: Vmlinux [("address_space", "host")];
    /// `struct vm_fault::page`.
    vm_fault_page: Vmlinux [("vm_fault", "page")];
    /// `struct file::f_op`: which file is a guest_memfd.
    file_f_op: Vmlinux [("file", "f_op")];
    /// `struct file_operations::fallocate`.
    file_operations_fallocate: Vmlinux [("file_operations", "fallocate")];
    /// `struct file::private_data`: of a guest_memfd, what binds it to its VM.
    file_private_data: Vmlinux [("file", "private_data")];
    /// `struct inode::i_rdev`: which file is /dev/kvm.
    inode_i_rdev: Vmlinux [("inode", "i_rdev")];
}

impl Offsets {
    /// The members that the programs at KVM's functions read, as they take them.
    pub fn members(&self) -> [u64; MEMBERS] {
        let mut members = [NO_MEMBER; MEMBERS];
        let td = self.kvm_tdx_td.zip(self.kvm_tdx_kvm).and_then(|(td, kvm)| td.checked_sub(kvm));
        for (member, offset) in [
            (Member::KvmTd, td),
            (Member::KvmVmType, self.kvm_arch.zip(self.kvm_arch_vm_type).map(|(arch, kind)| arch + kind)),
            (Member::KvmVmBugged, self.kvm_vm_bugged),
            (Member::GmemKvm, self.gmem_kvm),
            (Member::FileInode, self.file_f_inode),
            (Member::InodeIno, self.inode_i_ino),
            (Member::FolioMapping, self.folio_mapping),
            (Member::FolioIndex, self.folio_index),
            (Member::FolioRefcount, self.folio_refcount),
            (Member::MappingHost, self.address_space_host),
            (Member::VmFaultPage, self.vm_fault_page),
            (Member::FileFOp, self.file_f_op),
            (Member::FopFallocate, self.file_operations_fallocate),
            (Member::FilePrivateData, self.file_private_data),
            (Member::InodeIRdev, self.inode_i_rdev),
        ] {
            members[member as usize] = offset.map_or(NO_MEMBER, u64::from);
        }
        members
    }
}

fn first(btf: &Btf, paths: &[(&str, &str)]) -> Result<Option<u32>, BtfError> {
    for (name, path) in paths {
        if let Some(field) = btf.field(name, path)? {
            return Ok(Some(field.offset));
        }
    }
    Ok(None)
}
