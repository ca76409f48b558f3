//! What the types mean: prototypes of functions, offsets of members.

use std::fmt;

use super::{Btf, BtfError, Kind, Malformed, blob::Raw};

/// Longest chain of modifiers, pointers or anonymous members that is followed. The kernel's own limit for a chain
/// of modifiers (`MAX_RESOLVE_DEPTH`) is 32.
const MAX_DEPTH: usize = 32;
/// Most members looked at to find one. The largest structures have some hundred members, anonymous ones included.
const MAX_MEMBERS: usize = 100_000;
/// Most arguments of a function.
const MAX_ARGUMENTS: usize = 255;

/// A type as an argument has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRef {
    /// What it is once `typedef`, `const`, `volatile` and the like are looked through.
    pub base: Base,
    /// Name of the outermost typedef, where there is one: `gfn_t`, `kvm_pfn_t`, `u64`.
    pub alias: Option<String>,
}

/// A type without its modifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// `void`, and what has no value: a function.
    Void,
    /// An integer, by its C name.
    Int {
        /// `unsigned int`
        name: String,
        /// Its size.
        bytes: u32,
    },
    /// An enumeration of either width.
    Enum {
        /// Its tag, empty for an anonymous one.
        name: String,
    },
    /// A structure or union, complete or only declared.
    Struct {
        /// Its tag, empty for an anonymous one.
        name: String,
    },
    /// A pointer to this.
    Pointer(Box<TypeRef>),
    /// Array, floating point, or a kind that this reader does not know.
    Other,
}

impl TypeRef {
    /// Whether this is `struct name *` (or `union name *`).
    pub fn is_pointer_to_struct(&self, name: &str) -> bool {
        matches!(&self.base, Base::Pointer(to) if matches!(&to.base, Base::Struct { name: found } if found == name))
    }

    /// Whether this is a pointer to an integer of this size.
    pub fn is_pointer_to_int(&self, bytes: u32) -> bool {
        matches!(&self.base, Base::Pointer(to) if matches!(to.base, Base::Int { bytes: found, .. } if found == bytes))
    }
}

/// As C writes it.
impl fmt::Display for TypeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(alias) = &self.alias {
            return f.write_str(alias);
        }
        match &self.base {
            Base::Void => f.write_str("void"),
            Base::Int { name, .. } => f.write_str(name),
            Base::Enum { name } => write!(f, "enum {name}"),
            Base::Struct { name } => write!(f, "struct {name}"),
            Base::Pointer(to) if matches!(to.base, Base::Pointer(_)) && to.alias.is_none() => {
                write!(f, "{to}*")
            }
            Base::Pointer(to) => write!(f, "{to} *"),
            Base::Other => f.write_str("a type of another kind"),
        }
    }
}

/// An argument of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Empty in the prototypes of tracepoints.
    pub name: String,
    /// Its type.
    pub ty: TypeRef,
}

/// Arguments and result of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// In the order of the calling convention.
    pub arguments: Vec<Argument>,
    /// The result.
    pub returns: TypeRef,
}

/// Where a member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the structure.
    pub offset: u32,
    /// Its type.
    pub type_id: u32,
}

/// Where a member lies, to the bit.
#[derive(Clone, Copy)]
struct Place {
    bit: u32,
    /// Bits of a bit field, else 0.
    width: u32,
    type_id: u32,
}

impl Btf {
    /// The prototype behind a function, a pointer to one, or a typedef of either: `id` is that of a
    /// [`Kind::Func`] or of a `btf_trace_…` typedef.
    ///
    /// # Errors
    /// [`BtfError::Malformed`] where the blob is not sound there.
    pub fn prototype(&self, id: u32) -> Result<Prototype, BtfError> {
        let mut at = id;
        for _ in 0..MAX_DEPTH {
            let raw = self.raw(at)?;
            match kind(&raw) {
                Some(Kind::Func | Kind::Typedef | Kind::Ptr | Kind::Const) => at = raw.size_or_type,
                Some(Kind::FuncProto) if raw.vlen > MAX_ARGUMENTS => {
                    return Err(self.unsound(Malformed::TooManyArguments { id: at, count: raw.vlen }));
                }
                Some(Kind::FuncProto) => {
                    let arguments = (0..raw.vlen)
                        .map(|index| {
                            Ok(Argument {
                                name: self.string(self.word(at, &raw, 2 * index)?)?.to_owned(),
                                ty: self.type_ref(self.word(at, &raw, 2 * index + 1)?)?,
                            })
                        })
                        .collect::<Result<_, BtfError>>()?;
                    return Ok(Prototype { arguments, returns: self.type_ref(raw.size_or_type)? });
                }
                _ => {
                    let what =
                        Malformed::WrongKind { id: at, kind: raw.kind, expected: "a function's prototype" };
                    return Err(self.unsound(what));
                }
            }
        }
        Err(self.unsound(Malformed::TooDeep(id)))
    }

    /// The type with this id, looked through to its base.
    ///
    /// # Errors
    /// [`BtfError::Malformed`] where the blob is not sound there.
    pub fn type_ref(&self, id: u32) -> Result<TypeRef, BtfError> {
        self.type_ref_within(id, MAX_DEPTH)
    }

    fn type_ref_within(&self, id: u32, mut depth: usize) -> Result<TypeRef, BtfError> {
        let mut alias = None;
        let mut at = id;
        loop {
            depth = depth.checked_sub(1).ok_or_else(|| self.unsound(Malformed::TooDeep(id)))?;
            if at == 0 {
                return Ok(TypeRef { base: Base::Void, alias });
            }
            let raw = self.raw(at)?;
            let name = || self.string(raw.name_off).map(str::to_owned);
            let base = match kind(&raw) {
                Some(Kind::Typedef) => {
                    if alias.is_none() {
                        alias = Some(name()?);
                    }
                    at = raw.size_or_type;
                    continue;
                }
                Some(Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag) => {
                    at = raw.size_or_type;
                    continue;
                }
                Some(Kind::Ptr) => Base::Pointer(Box::new(self.type_ref_within(raw.size_or_type, depth)?)),
                Some(Kind::Int) => Base::Int { name: name()?, bytes: raw.size_or_type },
                Some(Kind::Enum | Kind::Enum64) => Base::Enum { name: name()? },
                Some(Kind::Struct | Kind::Union | Kind::Fwd) => Base::Struct { name: name()? },
                Some(Kind::Func | Kind::FuncProto) => Base::Void,
                _ => Base::Other,
            };
            return Ok(TypeRef { base, alias });
        }
    }

    /// Size in bytes of the structure or union `name`, of this blob or its base; the name must have been wanted.
    pub fn size_of(&self, name: &str) -> Option<u32> {
        self.aggregate(name).map(|(_, raw)| raw.size_or_type)
    }

    /// Where `path` lies in the structure `name`: `member` or `member.member`, anonymous members looked through.
    /// None where there is no such structure or member, or the member is a bit field.
    ///
    /// # Errors
    /// [`BtfError::Malformed`] where the blob is not sound there.
    pub fn field(&self, name: &str, path: &str) -> Result<Option<Field>, BtfError> {
        let Some((mut id, _)) = self.aggregate(name) else { return Ok(None) };
        let mut found = Field { offset: 0, type_id: id };
        let mut budget = MAX_MEMBERS;
        for member in path.split('.') {
            id = self.strip(found.type_id)?;
            let Some(next) = self.member(id, member, MAX_DEPTH, &mut budget)? else { return Ok(None) };
            if next.width != 0 || next.bit % 8 != 0 {
                return Ok(None);
            }
            let Some(offset) = found.offset.checked_add(next.bit / 8) else { return Ok(None) };
            found = Field { offset, type_id: next.type_id };
        }
        Ok(Some(found))
    }

    /// The first bit of a member of the structure `name`, anonymous members looked through. None where there is no such
    /// structure or member, or the member is no bit field.
    ///
    /// # Errors
    /// As for [`Self::field`].
    pub fn bit(&self, name: &str, member: &str) -> Result<Option<u32>, BtfError> {
        let Some((id, _)) = self.aggregate(name) else { return Ok(None) };
        let mut budget = MAX_MEMBERS;
        let found = self.member(id, member, MAX_DEPTH, &mut budget)?;
        Ok(found.filter(|found| found.width != 0).map(|found| found.bit))
    }

    /// Elements of the array that is a member of the structure `name`. None where there is no such structure or member, or
    /// the member is no array.
    ///
    /// # Errors
    /// As for [`Self::field`].
    pub fn length(&self, name: &str, member: &str) -> Result<Option<u32>, BtfError> {
        let Some(field) = self.field(name, member)? else { return Ok(None) };
        let id = self.strip(field.type_id)?;
        if id == 0 {
            return Ok(None);
        }
        let raw = self.raw(id)?;
        // `struct btf_array`: element's type, index's type, count.
        if kind(&raw) == Some(Kind::Array) { Ok(Some(self.word(id, &raw, 2)?)) } else { Ok(None) }
    }

    fn aggregate(&self, name: &str) -> Option<(u32, Raw)> {
        self.named(Kind::Struct, name)
            .chain(self.named(Kind::Union, name))
            .find_map(|id| Some((id, self.raw(id).ok()?)))
            .or_else(|| self.base()?.aggregate(name))
    }

    /// Looks through typedefs and qualifiers.
    fn strip(&self, id: u32) -> Result<u32, BtfError> {
        let mut at = id;
        for _ in 0..MAX_DEPTH {
            if at == 0 {
                return Ok(at);
            }
            let raw = self.raw(at)?;
            match kind(&raw) {
                Some(Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag) => {
                    at = raw.size_or_type;
                }
                _ => return Ok(at),
            }
        }
        Err(self.unsound(Malformed::TooDeep(id)))
    }

    fn member(
        &self,
        id: u32,
        wanted: &str,
        depth: usize,
        budget: &mut usize,
    ) -> Result<Option<Place>, BtfError> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.unsound(Malformed::TooDeep(id)))?;
        if id == 0 {
            return Ok(None);
        }
        let raw = self.raw(id)?;
        if !matches!(kind(&raw), Some(Kind::Struct | Kind::Union)) {
            return Ok(None);
        }
        for index in 0..raw.vlen {
            *budget = budget.checked_sub(1).ok_or_else(|| self.unsound(Malformed::TooDeep(id)))?;
            let name = self.string(self.word(id, &raw, 3 * index)?)?;
            let type_id = self.word(id, &raw, 3 * index + 1)?;
            let position = self.word(id, &raw, 3 * index + 2)?;
            // With the kind flag set: 8 bits of width, not 0 for a bit field, above 24 bits of position.
            let (width, bits) =
                if raw.kind_flag { (position >> 24, position & 0x00ff_ffff) } else { (0, position) };
            if name == wanted {
                return Ok(Some(Place { bit: bits, width, type_id }));
            }
            if name.is_empty()
                && let Some(inner) = self.member(self.strip(type_id)?, wanted, depth, budget)?
            {
                return Ok(bits.checked_add(inner.bit).map(|bit| Place { bit, ..inner }));
            }
        }
        Ok(None)
    }
}

fn kind(raw: &Raw) -> Option<Kind> {
    Kind::from_number(raw.kind)
}
