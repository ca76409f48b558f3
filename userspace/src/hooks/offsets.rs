//! Where the members lie that the programs read, from BTF. None: this kernel has no such member, or its part of
//! the kernel has no BTF here; programs that need it do without what it tells.

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
    /// `struct page::_refcount`: references still held at release.
    page_refcount: Vmlinux [("page", "_refcount")];
    /// `struct tdx_td::tdr_page`, `struct page *`: the TD's identity.
    tdx_td_tdr_page: Vmlinux [("tdx_td", "tdr_page")];
    /// `struct tdx_vp::tdvpr_page`, `struct page *`.
    tdx_vp_tdvpr_page: Vmlinux [("tdx_vp", "tdvpr_page")];
    /// `struct kvm_tdx::td`: from the TD that a SEAMCALL names back to its VM.
    kvm_tdx_td: KvmIntel [("kvm_tdx", "td")];
    /// `struct kvm_tdx::kvm`.
    kvm_tdx_kvm: KvmIntel [("kvm_tdx", "kvm")];
    /// `struct kvm_tdx::hkid`, `int`.
    kvm_tdx_hkid: KvmIntel [("kvm_tdx", "hkid")];
    /// `struct kvm_tdx::nr_premapped`: this kernel only counts pages before finalize.
    kvm_tdx_nr_premapped: KvmIntel [("kvm_tdx", "nr_premapped")];
    /// `struct kvm::vm_bugged`, `bool`.
    kvm_vm_bugged: Kvm [("kvm", "vm_bugged")];
    /// `struct kvm::vm_dead`, `bool`.
    kvm_vm_dead: Kvm [("kvm", "vm_dead")];
    /// `struct kvm_mmu_page::external_spt`, `void *`: the S-EPT page.
    kvm_mmu_page_external_spt: Kvm [("kvm_mmu_page", "external_spt")];
    /// `struct kvm_gmem::kvm`, later `struct gmem_file::kvm`.
    gmem_kvm: Kvm [("gmem_file", "kvm"), ("kvm_gmem", "kvm")];
    /// `struct file::f_inode`.
    file_f_inode: Vmlinux [("file", "f_inode")];
    /// `struct file::private_data`: of a guest_memfd what binds it to a VM.
    file_private_data: Vmlinux [("file", "private_data")];
    /// `struct inode::i_ino`.
    inode_i_ino: Vmlinux [("inode", "i_ino")];
    /// `struct address_space::host`, `struct inode *`.
    address_space_host: Vmlinux [("address_space", "host")];
    /// `struct vm_fault::vma`.
    vm_fault_vma: Vmlinux [("vm_fault", "vma")];
    /// `struct vm_fault::pgoff`.
    vm_fault_pgoff: Vmlinux [("vm_fault", "pgoff")];
    /// `struct vm_area_struct::vm_file`.
    vm_area_struct_vm_file: Vmlinux [("vm_area_struct", "vm_file")];
}

fn first(btf: &Btf, paths: &[(&str, &str)]) -> Result<Option<u32>, BtfError> {
    for (name, path) in paths {
        if let Some(field) = btf.field(name, path)? {
            return Ok(Some(field.offset));
        }
    }
    Ok(None)
}
