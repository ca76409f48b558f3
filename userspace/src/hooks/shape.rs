//! What a hooked function's arguments are, resolved by name and type from its prototype: never by position, never
//! by the kernel's release. Which hook wants which roles is in `table`.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::btf::{Argument, Base, Prototype, TypeRef};

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
    /// Level, in the unit of [`Shape::level`].
    Level,
    /// The frame given, taken or flushed, in the unit of [`Shape::page`].
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
    /// Guest frame number.
    Gfn,
    /// KVM's mirror of the S-EPT entry, from which the pfn is read.
    MirrorSpte,
    /// The mirror entry before the change.
    OldSpte,
    /// The mirror entry after the change.
    NewSpte,
    /// The S-EPT page's address in the kernel's direct map.
    PrivateSpt,
    /// `struct kvm_mmu_page *`, which knows the S-EPT page.
    MmuPage,
    /// `struct inode *` of a guest_memfd.
    Inode,
    /// `struct file *` of a guest_memfd.
    File,
    /// Mode of fallocate.
    FallocMode,
    /// First byte.
    Offset,
    /// Number of bytes.
    Len,
    /// What binds a guest_memfd to a VM: `struct kvm_gmem *`, later `struct gmem_file *`.
    Gmem,
    /// First index of a range of a file.
    Start,
    /// First index after it.
    End,
    /// `struct folio *`
    Folio,
    /// `struct address_space *`
    Mapping,
    /// `struct kvm_memory_slot *`
    Slot,
    /// Where the pfn is stored.
    PfnOut,
    /// `struct vm_fault *`
    VmFault,
}

/// Unit of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelUnit {
    /// The TDX module's: 4 KiB is 0.
    Tdx,
    /// The kernel's `enum pg_level`: 4 KiB is 1.
    PgLevel,
}

/// How a frame is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PageUnit {
    /// `struct page *`
    StructPage,
    /// Page frame number.
    Pfn,
}

/// What a function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Returns {
    /// Nothing.
    Void,
    /// 64 bits: of `tdh_*` the SEAMCALL's status.
    Bits64,
    /// 32 bits, the upper half of the register being undefined: 0 or a negative errno.
    Bits32,
}

/// A function's arguments, by their roles. Indices count from 0, in the order of the calling convention; for a
/// tracepoint the hidden `void *` is not counted, as raw_tp and tp_btf programs do not see it either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Which argument plays which role, 0 to 5.
    pub args: BTreeMap<Role, u8>,
    /// Unit of the level, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level_unit: Option<LevelUnit>,
    /// Unit of the page, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_unit: Option<PageUnit>,
    /// Number of arguments: in fexit the result follows the last of them.
    pub nargs: u8,
    /// The result.
    pub returns: Returns,
}

impl Shape {
    /// Index of the argument in this role.
    pub fn index(&self, role: Role) -> Option<u8> {
        self.args.get(&role).copied()
    }

    /// Index and unit of the level.
    pub fn level(&self) -> Option<(u8, LevelUnit)> {
        Some((self.index(Role::Level)?, self.level_unit?))
    }

    /// Index and unit of the page.
    pub fn page(&self) -> Option<(u8, PageUnit)> {
        Some((self.index(Role::Page)?, self.page_unit?))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut args: Vec<_> = self.args.iter().collect();
        args.sort_by_key(|(_, index)| **index);
        for (role, index) in args {
            write!(f, "{}={index}", role.name())?;
            match role {
                Role::Level => match self.level_unit {
                    Some(LevelUnit::Tdx) => f.write_str(":tdx")?,
                    Some(LevelUnit::PgLevel) => f.write_str(":pg_level")?,
                    None => {}
                },
                Role::Page => match self.page_unit {
                    Some(PageUnit::StructPage) => f.write_str(":struct_page")?,
                    Some(PageUnit::Pfn) => f.write_str(":pfn")?,
                    None => {}
                },
                _ => {}
            }
            f.write_str(" ")?;
        }
        match self.returns {
            Returns::Void => write!(f, "of {} -> void", self.nargs),
            Returns::Bits64 => write!(f, "of {} -> 64 bits", self.nargs),
            Returns::Bits32 => write!(f, "of {} -> 32 bits", self.nargs),
        }
    }
}

/// Why a prototype does not fit a hook.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A role that the hook needs is not there.
    #[error("no argument is the {0}")]
    NoArgument(&'static str),
    /// An argument of the right name is of a type that is not known for it: what it means is not guessed.
    #[error("its argument `{name}` is of type `{found}`: not known as a {role}")]
    UnknownType {
        /// The argument.
        name: String,
        /// Its type in C.
        found: String,
        /// What it was to be.
        role: &'static str,
    },
    /// Two arguments of a nameless prototype have the same type.
    #[error("two of its arguments could be the {0}")]
    Ambiguous(&'static str),
    /// An argument that does not fit a register, or one that is not passed in a register.
    #[error("its argument {0} is not passed in a register of its own")]
    NotInRegister(usize),
    /// A result that is neither nothing nor an integer.
    #[error("it returns `{0}`")]
    Returns(String),
}

/// Arguments that the x86-64 calling convention passes in registers; kprobes and uprobes see no others.
const REGISTERS: usize = 6;

impl Shape {
    /// Finds the roles in a prototype: all of `needs`, and those of `takes` that are there.
    ///
    /// # Errors
    /// [`ShapeError`] where a needed role is absent, or any of them is of an unknown type.
    pub fn resolve(prototype: &Prototype, needs: &[Role], takes: &[Role]) -> Result<Self, ShapeError> {
        let returns = match &prototype.returns.base {
            Base::Void => Returns::Void,
            Base::Int { bytes: 8, .. } => Returns::Bits64,
            Base::Int { bytes: 4, .. } | Base::Enum { .. } => Returns::Bits32,
            _ => return Err(ShapeError::Returns(prototype.returns.to_string())),
        };
        let all = &prototype.arguments;
        // Prototypes of tracepoints start with a hidden `void *`, and have no names.
        let nameless = all.iter().all(|argument| argument.name.is_empty());
        let arguments = if nameless { all.get(1..).unwrap_or_default() } else { all };
        if let Some(index) = arguments
            .iter()
            .position(|argument| matches!(argument.ty.base, Base::Struct { .. } | Base::Other | Base::Void))
        {
            return Err(ShapeError::NotInRegister(index));
        }
        let mut shape = Self {
            args: BTreeMap::new(),
            level_unit: None,
            page_unit: None,
            nargs: u8::try_from(arguments.len()).map_err(|_| ShapeError::NotInRegister(arguments.len()))?,
            returns,
        };
        for role in needs.iter().chain(takes) {
            let found = if nameless { role.by_type(arguments)? } else { role.by_name(arguments)? };
            match found {
                Some((index, _)) if index >= REGISTERS => return Err(ShapeError::NotInRegister(index)),
                Some((index, kind)) => {
                    shape.args.insert(*role, index as u8);
                    match kind {
                        Fits::Level(unit) => shape.level_unit = Some(unit),
                        Fits::Page(unit) => shape.page_unit = Some(unit),
                        Fits::Plainly => {}
                    }
                }
                None if needs.contains(role) => return Err(ShapeError::NoArgument(role.name())),
                None => {}
            }
        }
        // KVM's own functions count in pg_level even where the type is a mere int; only the wrappers of the
        // SEAMCALLs ever took the module's numbering.
        if let (Some((index, LevelUnit::Tdx)), None) = (shape.level(), shape.index(Role::Td)) {
            let Argument { name, ty } = &arguments[usize::from(index)];
            let role = Role::Level.name();
            return Err(ShapeError::UnknownType { name: name.clone(), found: ty.to_string(), role });
        }
        Ok(shape)
    }
}

/// How an argument plays its role.
enum Fits {
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
            Self::Gfn => "gfn",
            Self::MirrorSpte => "mirror_spte",
            Self::OldSpte => "old_spte",
            Self::NewSpte => "new_spte",
            Self::PrivateSpt => "private_spt",
            Self::MmuPage => "mmu_page",
            Self::Inode => "inode",
            Self::File => "file",
            Self::FallocMode => "falloc_mode",
            Self::Offset => "offset",
            Self::Len => "len",
            Self::Gmem => "gmem",
            Self::Start => "start",
            Self::End => "end",
            Self::Folio => "folio",
            Self::Mapping => "mapping",
            Self::Slot => "slot",
            Self::PfnOut => "pfn_out",
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
            Self::MmuPage => &["sp"],
            Self::FallocMode => &["mode"],
            Self::Gmem => &["gmem", "f"],
            Self::PfnOut => &["pfn"],
            Self::VmFault => &["vmf"],
            Self::Td => &["td"],
            Self::Vp => &["vp"],
            Self::Gpa => &["gpa"],
            Self::Level => &["level"],
            Self::Hkid => &["hkid"],
            Self::Order => &["order"],
            Self::Kvm => &["kvm"],
            Self::Gfn => &["gfn"],
            Self::MirrorSpte => &["mirror_spte"],
            Self::OldSpte => &["old_spte"],
            Self::NewSpte => &["new_spte"],
            Self::PrivateSpt => &["private_spt"],
            Self::Inode => &["inode"],
            Self::File => &["file"],
            Self::Offset => &["offset"],
            Self::Len => &["len"],
            Self::Start => &["start"],
            Self::End => &["end"],
            Self::Folio => &["folio"],
            Self::Mapping => &["mapping"],
            Self::Slot => &["slot"],
        }
    }

    fn by_name(self, arguments: &[Argument]) -> Result<Option<(usize, Fits)>, ShapeError> {
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

    fn by_type(self, arguments: &[Argument]) -> Result<Option<(usize, Fits)>, ShapeError> {
        let fits = |ty: &TypeRef| match self {
            Self::Page => ty.is_pointer_to_struct("page").then_some(Fits::Page(PageUnit::StructPage)),
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
            Self::Err1 | Self::Err2 | Self::PageType | Self::PageOwner | Self::PageSize | Self::PfnOut => {
                ty.is_pointer_to_int(8)
            }
            Self::Gpa
            | Self::Hkid
            | Self::Order
            | Self::Gfn
            | Self::MirrorSpte
            | Self::OldSpte
            | Self::NewSpte
            | Self::FallocMode
            | Self::Offset
            | Self::Len
            | Self::Start
            | Self::End => integer,
            Self::Kvm => pointer("kvm"),
            Self::PrivateSpt => matches!(&ty.base, Base::Pointer(to) if to.base == Base::Void),
            Self::MmuPage => pointer("kvm_mmu_page"),
            Self::Inode => pointer("inode"),
            Self::File => pointer("file"),
            Self::Gmem => pointer("kvm_gmem") || pointer("gmem_file"),
            Self::Folio => pointer("folio"),
            Self::Mapping => pointer("address_space"),
            Self::Slot => pointer("kvm_memory_slot"),
            Self::VmFault => pointer("vm_fault"),
        };
        fits.then_some(Fits::Plainly)
    }
}
