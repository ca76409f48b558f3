//! The kernel modules that machines load, with those that they depend on: which these are differs with the release.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run;

/// What is loaded: on Bochs the first, on QEMU, whose CPU is AMD's, the second.
pub const ROOTS: [&str; 2] = ["kvm-intel", "kvm-amd"];

/// Copies the modules out of a compiled tree, and for each of the two a file `NAME.order` that names, in the order of
/// loading, all files that it takes.
///
/// # Errors
/// A module was not compiled, or cannot be copied.
pub fn collect(tree: &Path, folder: &Path) -> Result<()> {
    let list = tree.join("modules.order");
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let files = compiled(tree, &text);
    for root in ROOTS {
        let mut order = Vec::new();
        add(&key(root), &files, &mut order)?;
        let mut names = String::new();
        for from in order {
            let name = from.file_name().unwrap_or_default();
            run::quiet(Command::new("objcopy").arg("--strip-debug").arg(&from).arg(folder.join(name)))?;
            names += &format!("{}\n", name.display());
        }
        let to = folder.join(format!("{root}.order"));
        fs::write(&to, names).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

/// Module files by name, from the lines of `modules.order`: `path/name.o`, `path/name.ko` in older kernels.
fn compiled(tree: &Path, list: &str) -> BTreeMap<String, PathBuf> {
    let files = list.lines().map(|line| tree.join(line).with_extension("ko"));
    files.map(|file| (key(&file.file_stem().unwrap_or_default().to_string_lossy()), file)).collect()
}

/// In `depends=`, a module's name has underscores where its file may have dashes.
fn key(name: &str) -> String {
    name.replace('-', "_")
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<PathBuf>) -> Result<()> {
    let file = files.get(name).with_context(|| format!("this kernel has no module {name}"))?;
    if order.contains(file) {
        return Ok(());
    }
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    for needed in depends(&content) {
        add(&needed, files, order)?;
    }
    order.push(file.clone());
    Ok(())
}

/// The names in the tag `depends=a,b` of the section .modinfo, which is a row of texts that each end in a zero.
fn depends(module: &[u8]) -> Vec<String> {
    const TAG: &[u8] = b"\0depends=";
    let Some(at) = module.windows(TAG.len()).position(|window| window == TAG) else { return Vec::new() };
    let text = module[at + TAG.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text);
    names.split(',').filter(|name| !name.is_empty()).map(key).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn what_a_module_depends_on_comes_before_it() {
        let tree = tempfile::tempdir().unwrap();
        let module = |name: &str, depends: &str| {
            fs::write(tree.path().join(name), format!("x\0license=GPL\0depends={depends}\0name=x\0"))
                .unwrap();
        };
        module("kvm-intel.ko", "kvm,irqbypass");
        module("kvm.ko", "irqbypass");
        module("irqbypass.ko", "");
        let files = compiled(tree.path(), "kvm-intel.o\nkvm.ko\nirqbypass.o\n");
        let mut order = Vec::new();
        add("kvm_intel", &files, &mut order).unwrap();
        let names: Vec<_> = order.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["irqbypass.ko", "kvm.ko", "kvm-intel.ko"]);
        let error = add("kvm_amd", &files, &mut order).unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no module kvm_amd");
    }
}
