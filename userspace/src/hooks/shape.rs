//! What a hooked function's arguments are, resolved by name and type from its prototype: never by position, never
//! by the kernel's release. Which hook wants which roles is in `table`.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{
    btf::{Argument, Base, Prototype},
    role::Fits,
};

pub use super::role::Role;

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
    /// `bool`: the lowest byte counts.
    Bits8,
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
            Returns::Bits8 => write!(f, "of {} -> 8 bits", self.nargs),
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
    #[error("its argument `{name}` is of type `{found}`, which is not known for the {role}")]
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
            Base::Int { bytes: 1, .. } => Returns::Bits8,
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test")]
mod tests {
    use super::{super::btf::TypeRef, *};

    fn plain(base: Base) -> TypeRef {
        TypeRef { base, alias: None }
    }

    fn int(bytes: u32) -> TypeRef {
        plain(Base::Int { name: "int".to_owned(), bytes })
    }

    fn pointer(name: &str) -> TypeRef {
        plain(Base::Pointer(Box::new(plain(Base::Struct { name: name.to_owned() }))))
    }

    fn of(arguments: &[(&str, TypeRef)], needs: &[Role]) -> Result<Shape, ShapeError> {
        let arguments = arguments
            .iter()
            .map(|(name, ty)| Argument { name: (*name).to_owned(), ty: ty.clone() })
            .collect();
        Shape::resolve(&Prototype { arguments, returns: int(8) }, needs, &[Role::Err1])
    }

    #[test]
    fn names_decide_not_positions() {
        let shape =
            of(&[("page", pointer("page")), ("td", pointer("tdx_td"))], &[Role::Td, Role::Page]).unwrap();
        assert_eq!((shape.index(Role::Td), shape.page()), (Some(1), Some((0, PageUnit::StructPage))));
        assert_eq!((shape.nargs, shape.index(Role::Err1)), (2, None));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let error = of(&[("td", pointer("tdx_td")), ("page", pointer("folio"))], &[Role::Page]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its argument `page` is of type `struct folio *`, which is not known for the page"
        );
        let error = of(&[("td", pointer("tdx_td"))], &[Role::Td, Role::Gpa]).unwrap_err();
        assert_eq!(error.to_string(), "no argument is the gpa");
        let error = of(&[("td", pointer("tdx_td")), ("ext_err1", int(8))], &[Role::Td]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its argument `ext_err1` is of type `int`, which is not known for the err1"
        );
    }

    #[test]
    fn an_int_is_a_tdx_level_only_in_a_wrapper_of_a_seamcall() {
        let level = [("td", pointer("tdx_td")), ("level", int(4))];
        assert_eq!(of(&level, &[Role::Td, Role::Level]).unwrap().level(), Some((1, LevelUnit::Tdx)));
        let error = of(&[("kvm", pointer("kvm")), ("level", int(4))], &[Role::Kvm, Role::Level]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its argument `level` is of type `int`, which is not known for the level"
        );
    }

    #[test]
    fn arguments_that_are_not_in_registers_are_refused() {
        let by_value = plain(Base::Struct { name: "s".to_owned() });
        let error = of(&[("s", by_value), ("td", pointer("tdx_td"))], &[Role::Td]).unwrap_err();
        assert_eq!(error, ShapeError::NotInRegister(0));
        let mut many = vec![("a", int(8)); 6];
        many.push(("td", pointer("tdx_td")));
        assert_eq!(of(&many, &[Role::Td]).unwrap_err(), ShapeError::NotInRegister(6));
    }

    #[test]
    fn nameless_prototypes_need_types_that_differ() {
        let hidden = ("", plain(Base::Pointer(Box::new(plain(Base::Void)))));
        let page = ("", pointer("page"));
        let shape = of(&[hidden.clone(), page.clone()], &[Role::Page]).unwrap();
        assert_eq!((shape.page(), shape.nargs), (Some((0, PageUnit::StructPage)), 1));
        let error = of(&[hidden, page.clone(), page], &[Role::Page]).unwrap_err();
        assert_eq!(error, ShapeError::Ambiguous("page"));
    }
}
