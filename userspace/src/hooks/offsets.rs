//! Where the members lie that the programs read, from BTF. None: this kernel has no such member, or its part of
//! the kernel has no BTF here; programs that need it do without what it tells.

use septwatch_common::kvm::{MEMBERS, Member, NO_MEMBER};
use serde::Serialize;

use super::btf::{Btf, BtfError, KernelBtf, Module};

/// `(field of Offsets, part of the kernel, [(structure, path), …])`: the first that exists counts. With `bits`, it is the
/// first bit of the member; with `length`, the number of its elements.
macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident: $module:ident $($bits:ident)? [$(($name:literal, $path:literal)),+];)*) => {
        /// Offsets in bytes, of members of bits in bits; sizes of structures in bytes.
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
                    $($field: offsets!(@ $($bits)?)(kernel.part(Module::$module), &[$(($name, $path)),+])?,)*
                })
            }

            /// Name and value of each, in the order of the structure.
            pub fn list(&self) -> Vec<(&'static str, Option<u32>)> {
                vec![("struct_page_size", self.struct_page_size), $((stringify!($field), self.$field)),*]
            }
        }
    };
    (@) => { first };
    (@ bits) => { first_bit };
    (@ length) => { first_length };
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
    /// `struct file_operations::release`: which file is a VM.
    file_operations_release: Vmlinux [("file_operations", "release")];
    /// `struct task_struct::tgid`.
    task_tgid: Vmlinux [("task_struct", "tgid")];
    /// `struct task_struct::comm`.
    task_comm: Vmlinux [("task_struct", "comm")];
    /// `struct task_struct::cgroups`, `struct css_set *`.
    task_cgroups: Vmlinux [("task_struct", "cgroups")];
    /// `struct css_set::dfl_cgrp`, `struct cgroup *`: in the hierarchy of version 2.
    css_set_dfl_cgrp: Vmlinux [("css_set", "dfl_cgrp")];
    /// `struct cgroup::kn`, `struct kernfs_node *`.
    cgroup_kn: Vmlinux [("cgroup", "kn")];
    /// `struct kernfs_node::id`: of a cgroup's, the cgroup's.
    kernfs_id: Vmlinux [("kernfs_node", "id")];
    /// `struct page::private`: of a table of the mirror, its `struct kvm_mmu_page *`.
    page_private: Vmlinux [("page", "private")];
    /// `struct tdx_td::tdcs_pages`, `struct page **`.
    tdx_td_tdcs_pages: Vmlinux [("tdx_td", "tdcs_pages")];
    /// `struct tdx_td::tdcs_nr_pages`, `int`.
    tdx_td_tdcs_nr_pages: Vmlinux [("tdx_td", "tdcs_nr_pages")];
    /// `struct tdx_td::tdcx_nr_pages`, `int`.
    tdx_td_tdcx_nr_pages: Vmlinux [("tdx_td", "tdcx_nr_pages")];
    /// `struct tdx_vp::tdcx_pages`, `struct page **`.
    tdx_vp_tdcx_pages: Vmlinux [("tdx_vp", "tdcx_pages")];
    /// `struct xarray::xa_head`.
    xarray_xa_head: Vmlinux [("xarray", "xa_head")];
    /// `struct xa_node::shift`, a byte.
    xa_node_shift: Vmlinux [("xa_node", "shift")];
    /// `struct xa_node::slots`, an array.
    xa_node_slots: Vmlinux [("xa_node", "slots")];
    /// Elements of `struct xa_node::slots`.
    xa_node_slots_length: Vmlinux length [("xa_node", "slots")];
    /// `struct kvm_tdx::state`, `enum kvm_tdx_state`.
    kvm_tdx_state: KvmIntel [("kvm_tdx", "state")];
    /// `struct kvm_tdx::hkid`, `int`.
    kvm_tdx_hkid: KvmIntel [("kvm_tdx", "hkid")];
    /// `struct vcpu_tdx::vcpu`.
    vcpu_tdx_vcpu: KvmIntel [("vcpu_tdx", "vcpu")];
    /// `struct vcpu_tdx::vp`: from a vCPU to what SEAMCALLs name.
    vcpu_tdx_vp: KvmIntel [("vcpu_tdx", "vp")];
    /// `struct vcpu_tdx::state`, `enum vcpu_tdx_state`.
    vcpu_tdx_state: KvmIntel [("vcpu_tdx", "state")];
    /// `struct kvm::vcpu_array`, `struct xarray`.
    kvm_vcpu_array: Kvm [("kvm", "vcpu_array")];
    /// `struct kvm_arch::tdp_mmu_roots`, `struct list_head`.
    kvm_arch_tdp_mmu_roots: Kvm [("kvm_arch", "tdp_mmu_roots")];
    /// `struct kvm_mmu_page::link`, `struct list_head`.
    kvm_mmu_page_link: Kvm [("kvm_mmu_page", "link")];
    /// `struct kvm_mmu_page::role`.
    kvm_mmu_page_role: Kvm [("kvm_mmu_page", "role")];
    /// `struct kvm_mmu_page::gfn`.
    kvm_mmu_page_gfn: Kvm [("kvm_mmu_page", "gfn")];
    /// `struct kvm_mmu_page::spt`: the table.
    kvm_mmu_page_spt: Kvm [("kvm_mmu_page", "spt")];
    /// `struct kvm_mmu_page::external_spt`: of a table of the mirror, its S-EPT page.
    kvm_mmu_page_external_spt: Kvm [("kvm_mmu_page", "external_spt")];
    /// First bit of `union kvm_mmu_page_role::level`.
    role_level: Kvm bits [("kvm_mmu_page_role", "level")];
    /// First bit of `union kvm_mmu_page_role::is_mirror`: whether a table is one of a mirror.
    role_is_mirror: Kvm bits [("kvm_mmu_page_role", "is_mirror")];
    /// First bit of `union kvm_mmu_page_role::invalid`: whether a root is about to go.
    role_invalid: Kvm bits [("kvm_mmu_page_role", "invalid")];
}

/// Members without which no TD that runs already can be found, walked or compared: what each is called in the kernel.
const WALK: [(Member, &str); 21] = [
    (Member::KvmTd, "kvm_tdx.td"),
    (Member::KvmVmType, "kvm_arch.vm_type"),
    (Member::FileFOp, "file.f_op"),
    (Member::FilePrivateData, "file.private_data"),
    (Member::FopRelease, "file_operations.release"),
    (Member::TaskTgid, "task_struct.tgid"),
    (Member::PagePrivate, "page.private"),
    (Member::KvmTdxState, "kvm_tdx.state"),
    (Member::KvmTdxHkid, "kvm_tdx.hkid"),
    (Member::KvmRoots, "kvm_arch.tdp_mmu_roots"),
    (Member::MmuPageLink, "kvm_mmu_page.link"),
    (Member::MmuPageRole, "kvm_mmu_page.role"),
    (Member::MmuPageGfn, "kvm_mmu_page.gfn"),
    (Member::MmuPageSpt, "kvm_mmu_page.spt"),
    (Member::MmuPageExternalSpt, "kvm_mmu_page.external_spt"),
    (Member::RoleLevel, "kvm_mmu_page_role.level"),
    (Member::RoleIsMirror, "kvm_mmu_page_role.is_mirror"),
    (Member::RoleInvalid, "kvm_mmu_page_role.invalid"),
    (Member::TdTdcsPages, "tdx_td.tdcs_pages"),
    (Member::TdTdcsCount, "tdx_td.tdcs_nr_pages"),
    (Member::KvmVmBugged, "kvm.vm_bugged"),
];

/// The same for the control pages of vCPUs.
const WALK_VCPUS: [(Member, &str); 8] = [
    (Member::TdTdcxCount, "tdx_td.tdcx_nr_pages"),
    (Member::VpTdcxPages, "tdx_vp.tdcx_pages"),
    (Member::VcpuVp, "vcpu_tdx.vp"),
    (Member::VcpuState, "vcpu_tdx.state"),
    (Member::KvmVcpus, "kvm.vcpu_array"),
    (Member::XaNodeShift, "xa_node.shift"),
    (Member::XaNodeSlots, "xa_node.slots"),
    (Member::XaNodeCount, "the length of xa_node.slots"),
];

impl Offsets {
    /// The members that walking a TD needs, and that this kernel does not have: names as in the kernel.
    pub fn missing_for_walk(&self) -> Vec<&'static str> {
        let members = self.members();
        let all = WALK.iter().chain(&WALK_VCPUS);
        all.filter(|(member, _)| members[*member as usize] == NO_MEMBER).map(|(_, name)| *name).collect()
    }

    /// The members that the programs at KVM's functions read, as they take them.
    pub fn members(&self) -> [u64; MEMBERS] {
        let mut members = [NO_MEMBER; MEMBERS];
        let of_kvm_tdx = |member: Option<u32>| {
            member.zip(self.kvm_tdx_kvm).and_then(|(member, kvm)| member.checked_sub(kvm))
        };
        let of_vcpu_tdx = |member: Option<u32>| {
            member.zip(self.vcpu_tdx_vcpu).and_then(|(member, vcpu)| member.checked_sub(vcpu))
        };
        let inside = |outer: Option<u32>, inner: Option<u32>| {
            outer.zip(inner).and_then(|(outer, inner)| outer.checked_add(inner))
        };
        for (member, offset) in [
            (Member::KvmTd, of_kvm_tdx(self.kvm_tdx_td)),
            (Member::KvmVmType, inside(self.kvm_arch, self.kvm_arch_vm_type)),
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
            (Member::FopRelease, self.file_operations_release),
            (Member::TaskTgid, self.task_tgid),
            (Member::TaskComm, self.task_comm),
            (Member::TaskCgroups, self.task_cgroups),
            (Member::CssSetDflCgrp, self.css_set_dfl_cgrp),
            (Member::CgroupKn, self.cgroup_kn),
            (Member::KernfsId, self.kernfs_id),
            (Member::PagePrivate, self.page_private),
            (Member::KvmTdxState, of_kvm_tdx(self.kvm_tdx_state)),
            (Member::KvmTdxHkid, of_kvm_tdx(self.kvm_tdx_hkid)),
            (Member::KvmRoots, inside(self.kvm_arch, self.kvm_arch_tdp_mmu_roots)),
            (Member::MmuPageLink, self.kvm_mmu_page_link),
            (Member::MmuPageRole, self.kvm_mmu_page_role),
            (Member::MmuPageGfn, self.kvm_mmu_page_gfn),
            (Member::MmuPageSpt, self.kvm_mmu_page_spt),
            (Member::MmuPageExternalSpt, self.kvm_mmu_page_external_spt),
            (Member::RoleLevel, self.role_level),
            (Member::RoleIsMirror, self.role_is_mirror),
            (Member::RoleInvalid, self.role_invalid),
            (Member::TdTdcsPages, self.tdx_td_tdcs_pages),
            (Member::TdTdcsCount, self.tdx_td_tdcs_nr_pages),
            (Member::TdTdcxCount, self.tdx_td_tdcx_nr_pages),
            (Member::VpTdcxPages, self.tdx_vp_tdcx_pages),
            (Member::VcpuVp, of_vcpu_tdx(self.vcpu_tdx_vp)),
            (Member::VcpuState, of_vcpu_tdx(self.vcpu_tdx_state)),
            (Member::KvmVcpus, inside(self.kvm_vcpu_array, self.xarray_xa_head)),
            (Member::XaNodeShift, self.xa_node_shift),
            (Member::XaNodeSlots, self.xa_node_slots),
            (Member::XaNodeCount, self.xa_node_slots_length.filter(|count| count.is_power_of_two())),
        ] {
            members[member as usize] = offset.map_or(NO_MEMBER, u64::from);
        }
        members
    }
}

/// What the first path that there is says.
fn first_of(
    paths: &[(&str, &str)],
    mut of: impl FnMut(&str, &str) -> Result<Option<u32>, BtfError>,
) -> Result<Option<u32>, BtfError> {
    for (name, path) in paths {
        if let Some(found) = of(name, path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn first(btf: &Btf, paths: &[(&str, &str)]) -> Result<Option<u32>, BtfError> {
    first_of(paths, |name, path| Ok(btf.field(name, path)?.map(|field| field.offset)))
}

fn first_bit(btf: &Btf, paths: &[(&str, &str)]) -> Result<Option<u32>, BtfError> {
    first_of(paths, |name, path| btf.bit(name, path))
}

fn first_length(btf: &Btf, paths: &[(&str, &str)]) -> Result<Option<u32>, BtfError> {
    first_of(paths, |name, path| btf.length(name, path))
}
