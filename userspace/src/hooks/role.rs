//! The roles of arguments: the kernel's names for them, and the types that are known for them. A type that is not
//! listed here is not guessed at.

use serde::Serialize;

use super::{
    btf::{Argument, Base, TypeRef},
    shape::{LevelUnit, PageUnit, ShapeError},
};

/// What an argument is to septwatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The TD, `struct tdx_td *`.
    Td,
    /// The vCPU, `struct tdx_vp *`.
    Vp,
    /// Guest physical address, bytes.
    Gpa,
    /// Level, in the unit of [`super::shape::Shape::level`].
    Level,
    /// The frame given, taken or flushed, in the unit of [`super::shape::Shape::page`].
    Page,
    /// Where the module's first further word (RCX) is stored, `u64 *`.
    Err1,
    /// Where the second (RDX) is stored.
    Err2,
    /// Key id.
    Hkid,
    /// Where RECLAIM stores the page's type.
    PageType,
    /// Where RECLAIM stores the page's owner.
    PageOwner,
    /// Where RECLAIM stores the page's size.
    PageSize,
    /// log2 of the number of 4 KiB frames, of the allocator's tracepoints.
    Order,
    /// `struct kvm *`
    Kvm,
    /// What KVM asks of vCPUs: number and flags.
    Request,
    /// Guest frame number.
    Gfn,
    /// KVM's mirror of the S-EPT entry, from which the pfn is read.
    MirrorSpte,
    /// The mirror entry before the change.
    OldSpte,
    /// `struct inode *` of a guest_memfd.
    Inode,
    /// `struct file *` of a guest_memfd.
    File,
    /// Mode of fallocate.
    FallocMode,
    /// What binds a guest_memfd to a VM: `struct kvm_gmem *`, later `struct gmem_file *`.
    Gmem,
    /// `struct folio *`
    Folio,
    /// `struct vm_fault *`
    VmFault,
}

/// How an argument plays its role.
pub(super) enum Fits {
    Plainly,
    Level(LevelUnit),
    Page(PageUnit),
}

impl Role {
    /// Short name, as in the plan's text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Td => "td",
            Self::Vp => "vp",
            Self::Gpa => "gpa",
            Self::Level => "level",
            Self::Page => "page",
            Self::Err1 => "err1",
            Self::Err2 => "err2",
            Self::Hkid => "hkid",
            Self::PageType => "page_type",
            Self::PageOwner => "page_owner",
            Self::PageSize => "page_size",
            Self::Order => "order",
            Self::Kvm => "kvm",
            Self::Request => "request",
            Self::Gfn => "gfn",
            Self::MirrorSpte => "mirror_spte",
            Self::OldSpte => "old_spte",
            Self::Inode => "inode",
            Self::File => "file",
            Self::FallocMode => "falloc_mode",
            Self::Gmem => "gmem",
            Self::Folio => "folio",
            Self::VmFault => "vm_fault",
        }
    }

    /// The kernel's names for an argument in this role.
    const fn names(self) -> &'static [&'static str] {
        match self {
            // arch/x86/virt/vmx/tdx/tdx.c: tdcs_page of ADDCX, tdcx_page of VP.ADDCX.
            Self::Page => &["page", "pfn", "tdcs_page", "tdcx_page"],
            // extended_err of MNG.INIT is RCX as well.
            Self::Err1 => &["ext_err1", "extended_err"],
            Self::Err2 => &["ext_err2"],
            Self::PageType => &["tdx_pt"],
            Self::PageOwner => &["tdx_owner"],
            Self::PageSize => &["tdx_size"],
            Self::FallocMode => &["mode"],
            Self::Gmem => &["gmem", "f"],
            Self::VmFault => &["vmf"],
            Self::Td => &["td"],
            Self::Vp => &["vp"],
            Self::Gpa => &["gpa"],
            Self::Level => &["level"],
            Self::Hkid => &["hkid"],
            Self::Order => &["order"],
            Self::Kvm => &["kvm"],
            Self::Request => &["req"],
            Self::Gfn => &["gfn"],
            Self::MirrorSpte => &["mirror_spte"],
            Self::OldSpte => &["old_spte"],
            Self::Inode => &["inode"],
            Self::File => &["file"],
            // kvm_gmem_migrate_folio: what is moved away.
            Self::Folio => &["folio", "src"],
        }
    }

    pub(super) fn by_name(self, arguments: &[Argument]) -> Result<Option<(usize, Fits)>, ShapeError> {
        let Some(index) =
            arguments.iter().position(|argument| self.names().contains(&argument.name.as_str()))
        else {
            return Ok(None);
        };
        let argument = &arguments[index];
        match self.fits(&argument.ty) {
            Some(fits) => Ok(Some((index, fits))),
            None => Err(ShapeError::UnknownType {
                name: argument.name.clone(),
                found: argument.ty.to_string(),
                role: self.name(),
            }),
        }
    }

    pub(super) fn by_type(self, arguments: &[Argument]) -> Result<Option<(usize, Fits)>, ShapeError> {
        let fits = |ty: &TypeRef| match self {
            Self::Page => ty.is_pointer_to_struct("page").then_some(Fits::Page(PageUnit::StructPage)),
            Self::Folio => ty.is_pointer_to_struct("folio").then_some(Fits::Plainly),
            // gfp_t, the other unsigned int of mm_page_alloc, has an alias.
            Self::Order => (ty.to_string() == "unsigned int").then_some(Fits::Plainly),
            _ => None,
        };
        let mut found =
            arguments.iter().enumerate().filter_map(|(index, argument)| Some((index, fits(&argument.ty)?)));
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(ShapeError::Ambiguous(self.name())),
            (first, None) => Ok(first),
        }
    }

    fn fits(self, ty: &TypeRef) -> Option<Fits> {
        let integer = matches!(ty.base, Base::Int { .. });
        let pointer = |name| ty.is_pointer_to_struct(name);
        let fits = match self {
            Self::Level => {
                return match &ty.base {
                    Base::Enum { name } if name == "pg_level" => Some(Fits::Level(LevelUnit::PgLevel)),
                    // The wrappers took the module's own numbering before they took pg_level.
                    Base::Int { .. } => Some(Fits::Level(LevelUnit::Tdx)),
                    _ => None,
                };
            }
            Self::Page if pointer("page") => return Some(Fits::Page(PageUnit::StructPage)),
            Self::Page if integer => return Some(Fits::Page(PageUnit::Pfn)),
            Self::Page => false,
            Self::Td => pointer("tdx_td"),
            Self::Vp => pointer("tdx_vp"),
            Self::Err1 | Self::Err2 | Self::PageType | Self::PageOwner | Self::PageSize => {
                ty.is_pointer_to_int(8)
            }
            Self::Gpa
            | Self::Hkid
            | Self::Order
            | Self::Gfn
            | Self::Request
            | Self::MirrorSpte
            | Self::OldSpte
            | Self::FallocMode => integer,
            Self::Kvm => pointer("kvm"),
            Self::Inode => pointer("inode"),
            Self::File => pointer("file"),
            Self::Gmem => pointer("kvm_gmem") || pointer("gmem_file"),
            Self::Folio => pointer("folio"),
            Self::VmFault => pointer("vm_fault"),
        };
        fits.then_some(Fits::Plainly)
    }
}
