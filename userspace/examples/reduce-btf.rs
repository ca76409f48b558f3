//! Reduces a kernel's BTF to the types that a hook plan looks at, for the fixtures of the tests:
//! `cargo run -p septwatch --example reduce-btf -- FROM TO`, two folders with files as in /sys/kernel/btf.
//!
//! It prints the plan, after making sure that the reduced BTF gives the same one. What is left is real BTF that any reader reads: prototypes in full; of a structure that the plan knows, the
//! members that it knows, at their true offsets; every other structure declared only.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use septwatch::hooks::{
    btf::{Btf, KernelBtf, Kind},
    host::Allowed,
    offsets::Offsets,
    plan::{btf_names, plan},
};

fn main() -> Result<()> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [from, to] = folders.as_slice() else { bail!("usage: reduce-btf FROM TO (two folders)") };
    let names = btf_names();
    let kernel = KernelBtf::read(from, &names)?;
    let expected = plan(&kernel, None, &Allowed::assumed())?.to_string();
    let modules: Vec<_> = [("kvm", kernel.kvm), ("kvm_intel", kernel.kvm_intel)]
        .into_iter()
        .filter_map(|(name, btf)| Some(btf?.map(|btf| (name, btf))))
        .collect::<Result<_, _>>()?;

    let mut vmlinux = Reduced::new(&kernel.vmlinux);
    vmlinux.add_named(&names, None)?;
    // A module's ids start after the last of vmlinux: a first round finds what the modules need of it.
    for (_, btf) in &modules {
        Reduced::new(btf).add_named(&names, Some(&mut vmlinux))?;
    }
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for (name, btf) in &modules {
        let mut module = Reduced::new(btf);
        module.first_id = vmlinux.first_id + u32::try_from(vmlinux.types.len())?;
        module.first_string = u32::try_from(vmlinux.strings.len())?;
        let before = vmlinux.types.len();
        module.add_named(&names, Some(&mut vmlinux))?;
        ensure!(vmlinux.types.len() == before, "the first round missed types of vmlinux that {name} needs");
        module.write(&to.join(format!("{name}.btf")), &vmlinux.strings)?;
    }
    vmlinux.write(&to.join("vmlinux.btf"), &[])?;
    let reduced = plan(&KernelBtf::read(to, &names)?, None, &Allowed::assumed())?.to_string();
    ensure!(reduced == expected, "the reduced BTF gives another plan:\n{reduced}instead of\n{expected}");
    print!("{reduced}");
    Ok(())
}

/// A blob in the making.
struct Reduced<'a> {
    source: &'a Btf,
    first_id: u32,
    first_string: u32,
    types: Vec<Type>,
    strings: Vec<u8>,
    /// From ids of the source to ids here.
    ids: HashMap<u32, u32>,
    /// The structure whose members are being copied.
    owner: String,
}

/// `struct btf_type` with its words behind it; words that are names wait until the strings are laid out.
#[derive(Clone, Default)]
struct Type {
    name: String,
    info: u32,
    size_or_type: u32,
    tail: Vec<Word>,
}

#[derive(Clone)]
enum Word {
    Name(String),
    Number(u32),
}

impl<'a> Reduced<'a> {
    fn new(source: &'a Btf) -> Self {
        let (types, strings, ids, owner) = (vec![], vec![], HashMap::new(), String::new());
        Self { source, first_id: 1, first_string: 0, types, strings, ids, owner }
    }

    fn add_named(&mut self, names: &HashSet<&'static str>, mut base: Option<&mut Reduced<'_>>) -> Result<()> {
        let mut sorted: Vec<_> = names.iter().collect();
        sorted.sort_unstable();
        for name in sorted {
            for kind in [Kind::Func, Kind::Typedef, Kind::Struct] {
                for id in self.source.named(kind, name).collect::<Vec<_>>() {
                    self.copy(id, base.as_deref_mut())?;
                }
            }
        }
        if base.is_none() {
            self.lay_out_strings(&[])?;
        }
        Ok(())
    }

    /// Copies the type and what it needs, and gives its id here.
    fn copy(&mut self, id: u32, mut base: Option<&mut Reduced<'_>>) -> Result<u32> {
        if id == 0 {
            return Ok(0);
        }
        if id < self.source.first_id() {
            let base = base.context("a type of a base that there is not")?;
            let known = base.types.len();
            let new = base.copy(id, None)?;
            if base.types.len() != known {
                base.lay_out_strings(&[])?;
            }
            return Ok(new);
        }
        if let Some(new) = self.ids.get(&id) {
            return Ok(*new);
        }
        let new = self.first_id + u32::try_from(self.types.len())?;
        self.ids.insert(id, new);
        self.types.push(Type::default());
        let copied = self.reduced(id, &mut base)?;
        self.types[(new - self.first_id) as usize] = copied;
        Ok(new)
    }

    fn reduced(&mut self, id: u32, base: &mut Option<&mut Reduced<'_>>) -> Result<Type> {
        let source = self.source;
        let words: Vec<u32> =
            source.encoded(id)?.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
        let [name, info, size_or_type, tail @ ..] = words.as_slice() else { bail!("type {id} is too short") };
        let name = source.string(*name)?.to_owned();
        let (number, flag) = (*info >> 24 & 0x7f, *info & 1 << 31);
        let with = |size_or_type, tail| Type { name: name.clone(), info: *info, size_or_type, tail };
        let is = |kinds: &[Kind]| kinds.iter().any(|kind| *kind as u32 == number);
        use Kind::{
            Array, Const, Enum, Enum64, Float, Func, FuncProto, Fwd, Int, Ptr, Restrict, Struct, TypeTag,
            Typedef, Union, Volatile,
        };
        if is(&[Ptr, Typedef, Volatile, Const, Restrict, Func, TypeTag]) {
            return Ok(with(self.copy(*size_or_type, base.as_deref_mut())?, vec![]));
        }
        if is(&[Int, Float, Fwd]) {
            return Ok(with(*size_or_type, tail.iter().copied().map(Word::Number).collect()));
        }
        if is(&[Enum, Enum64]) {
            // Without its enumerators: only its name is looked at.
            return Ok(Type { info: *info & 0xff00_0000, ..with(*size_or_type, vec![]) });
        }
        if is(&[Array]) {
            let [element, index, count] = tail else { bail!("array {id} is too short") };
            let (element, index) =
                (self.copy(*element, base.as_deref_mut())?, self.copy(*index, base.as_deref_mut())?);
            return Ok(with(0, vec![Word::Number(element), Word::Number(index), Word::Number(*count)]));
        }
        if is(&[FuncProto]) {
            let mut arguments = Vec::new();
            for [name, ty] in tail.as_chunks::<2>().0 {
                arguments.push(Word::Name(source.string(*name)?.to_owned()));
                arguments.push(Word::Number(self.copy(*ty, base.as_deref_mut())?));
            }
            return Ok(with(self.copy(*size_or_type, base.as_deref_mut())?, arguments));
        }
        ensure!(
            is(&[Struct, Union]),
            "type {id} is of kind {number}, which no prototype or member should lead to"
        );
        if !name.is_empty() && !Offsets::STRUCTURES.contains(&name.as_str()) {
            let union = if is(&[Union]) { 1 << 31 } else { 0 };
            return Ok(Type { info: (Fwd as u32) << 24 | union, ..with(0, vec![]) });
        }
        // Anonymous structures and unions belong to the structure around them.
        let owner = if name.is_empty() { self.owner.clone() } else { name.clone() };
        let mut members = Vec::new();
        for [member, ty, position] in tail.as_chunks::<3>().0 {
            let member = source.string(*member)?;
            let known = |member| Offsets::PATHS.iter().any(|(of, path)| *of == owner && *path == member);
            if member.is_empty() || known(member) {
                let outer = std::mem::replace(&mut self.owner, owner.clone());
                let ty = self.copy(*ty, base.as_deref_mut())?;
                self.owner = outer;
                members.extend([Word::Name(member.to_owned()), Word::Number(ty), Word::Number(*position)]);
            }
        }
        let info = number << 24 | flag | u32::try_from(members.len() / 3)?;
        Ok(Type { info, ..with(*size_or_type, members) })
    }

    /// Puts every name into the string section, unless the base's has it.
    fn lay_out_strings(&mut self, base: &[u8]) -> Result<()> {
        if base.is_empty() && self.strings.is_empty() {
            self.strings.push(0);
        }
        for ty in self.types.clone() {
            for name in [&ty.name].into_iter().chain(ty.tail.iter().filter_map(Word::name)) {
                if position(base, name).is_none() && position(&self.strings, name).is_none() {
                    self.strings.extend(name.as_bytes());
                    self.strings.push(0);
                }
            }
        }
        Ok(())
    }

    fn write(mut self, file: &Path, base: &[u8]) -> Result<()> {
        self.lay_out_strings(base)?;
        let offset = |name: &str| -> Result<u32> {
            if let Some(at) = position(base, name) {
                return Ok(u32::try_from(at)?);
            }
            let at = position(&self.strings, name).context("a name that was not laid out")?;
            Ok(self.first_string + u32::try_from(at)?)
        };
        let mut words = Vec::new();
        for ty in &self.types {
            words.extend([offset(&ty.name)?, ty.info, ty.size_or_type]);
            for word in &ty.tail {
                words.push(match word {
                    Word::Name(name) => offset(name)?,
                    Word::Number(number) => *number,
                });
            }
        }
        let types_len = u32::try_from(4 * words.len())?;
        // struct btf_header: magic, version 1, no flags; then type_off, type_len, str_off, str_len.
        let mut data = vec![];
        data.extend(0xeb9f_u16.to_ne_bytes());
        data.extend([1, 0]);
        let header = [24, 0, types_len, types_len, u32::try_from(self.strings.len())?];
        data.extend(header.into_iter().chain(words).flat_map(u32::to_ne_bytes));
        data.extend(&self.strings);
        fs::write(file, data).with_context(|| file.display().to_string())
    }
}

impl Word {
    fn name(&self) -> Option<&String> {
        match self {
            Self::Name(name) => Some(name),
            Self::Number(_) => None,
        }
    }
}

/// Where `name` starts in a string section as a whole string.
fn position(strings: &[u8], name: &str) -> Option<usize> {
    let wanted = [name.as_bytes(), &[0]].concat();
    let mut starts = (0..strings.len()).filter(|at| *at == 0 || strings[at - 1] == 0);
    starts.find(|at| strings[*at..].starts_with(&wanted))
}
