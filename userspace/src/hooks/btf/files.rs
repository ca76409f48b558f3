//! Which files hold the BTF of a kernel: sysfs for the running one, a folder for any other.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Btf, BtfError};

/// Where the running kernel shows its BTF.
pub const SYSFS: &str = "/sys/kernel/btf";

/// A part of the kernel that has BTF of its own, or is built into vmlinux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum Module {
    Vmlinux,
    Kvm,
    KvmIntel,
}

impl Module {
    /// As the kernel names it in sysfs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmlinux => "vmlinux",
            Self::Kvm => "kvm",
            Self::KvmIntel => "kvm_intel",
        }
    }

    /// Names that its BTF file may have.
    const fn file_names(self) -> &'static [&'static str] {
        match self {
            Self::Vmlinux => &["vmlinux", "vmlinux.btf"],
            Self::Kvm => &["kvm", "kvm.btf"],
            Self::KvmIntel => &["kvm_intel", "kvm_intel.btf", "kvm-intel", "kvm-intel.btf"],
        }
    }
}

/// The BTF of a kernel and of those of its modules that septwatch hooks.
#[derive(Debug)]
pub struct KernelBtf {
    /// Where it was read from.
    pub dir: PathBuf,
    /// The kernel proper.
    pub vmlinux: Arc<Btf>,
    /// kvm's, None where it has no file: built in, not loaded, or the kernel has no BTF of modules.
    pub kvm: Option<Result<Btf, BtfError>>,
    /// kvm_intel's, likewise.
    pub kvm_intel: Option<Result<Btf, BtfError>>,
}

impl KernelBtf {
    /// Reads the BTF files in `dir`, named as in [`SYSFS`], with or without `.btf`, `kvm-intel` for `kvm_intel`.
    /// Only types named in `wanted` can be found by name.
    ///
    /// # Errors
    /// [`BtfError`] where vmlinux' is missing or not sound; what is wrong with a module's is kept with it.
    pub fn read(dir: &Path, wanted: &HashSet<&str>) -> Result<Self, BtfError> {
        let Some((file, data)) = read_first(dir, Module::Vmlinux)? else {
            let source = io::Error::new(io::ErrorKind::NotFound, "there is no such file");
            return Err(BtfError::Read { file: dir.join(Module::Vmlinux.name()), source });
        };
        let vmlinux = Arc::new(Btf::parse(&file, data, None, wanted)?);
        let module = |module| {
            let found = read_first(dir, module).transpose()?;
            Some(found.and_then(|(file, data)| Btf::parse(&file, data, Some(Arc::clone(&vmlinux)), wanted)))
        };
        let (kvm, kvm_intel) = (module(Module::Kvm), module(Module::KvmIntel));
        Ok(Self { dir: dir.to_owned(), vmlinux, kvm, kvm_intel })
    }

    /// The BTF of this part, with that of vmlinux beneath it; vmlinux' where the part has none of its own.
    pub fn part(&self, module: Module) -> &Btf {
        let own = match module {
            Module::Vmlinux => None,
            Module::Kvm => self.kvm.as_ref(),
            Module::KvmIntel => self.kvm_intel.as_ref(),
        };
        own.and_then(|btf| btf.as_ref().ok()).unwrap_or(&self.vmlinux)
    }
}

fn read_first(dir: &Path, module: Module) -> Result<Option<(PathBuf, Vec<u8>)>, BtfError> {
    for name in module.file_names() {
        let file = dir.join(name);
        match fs::read(&file) {
            Ok(data) => return Ok(Some((file, data))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(BtfError::Read { file, source }),
        }
    }
    Ok(None)
}
