//! A copy of somebody's source tree, kept up to date: their tree is never written to, and only what changed is
//! compiled again, because unchanged files keep their times.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::run;

/// What was done.
pub struct Copied {
    pub files: usize,
    pub written: usize,
    /// Differs whenever a file's name, size or time differs.
    pub state: String,
}

/// The list of files that the last update left.
const LIST: &str = ".mirrored";

/// Brings the copy up to date.
///
/// # Errors
/// A file cannot be read or written, or the tree is not under git: only git knows sources from what was built.
pub fn update(tree: &Path, copy: &Path) -> Result<Copied> {
    let files = files_of(tree)?;
    fs::create_dir_all(copy).with_context(|| format!("cannot create {}", copy.display()))?;
    let list = copy.join(LIST);
    let before: BTreeSet<PathBuf> =
        fs::read_to_string(&list).unwrap_or_default().lines().map(PathBuf::from).collect();
    let mut state = Sha256::new();
    let mut written = 0;
    for file in &files {
        let (from, to) = (tree.join(file), copy.join(file));
        let meta = fs::symlink_metadata(&from).with_context(|| format!("cannot read {}", from.display()))?;
        state.update(format!("{} {} {}.{}\n", file.display(), meta.size(), meta.mtime(), meta.mtime_nsec()));
        if same(&meta, &to) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        copy_file(&from, &to, &meta).with_context(|| format!("cannot copy {}", from.display()))?;
        written += 1;
    }
    for gone in before.difference(&files) {
        let _ = fs::remove_file(copy.join(gone));
    }
    let names: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    fs::write(&list, names).with_context(|| format!("cannot write {}", list.display()))?;
    let state = state.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Copied { files: files.len(), written, state })
}

/// Tracked files and new ones, as far as they are there.
fn files_of(tree: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut git = Command::new("git");
    git.arg("-C").arg(tree).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = run::quiet(&mut git).with_context(|| {
        format!("{} is not under git; give an archive of it with --source", tree.display())
    })?;
    let names = listed.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    let files: BTreeSet<_> = names.filter(|name| tree.join(name).symlink_metadata().is_ok()).collect();
    ensure!(files.contains(Path::new("Kbuild")), "{} is not the top of a kernel tree", tree.display());
    Ok(files)
}

fn same(meta: &fs::Metadata, copy: &Path) -> bool {
    fs::symlink_metadata(copy).is_ok_and(|there| {
        there.file_type() == meta.file_type()
            && there.size() == meta.size()
            && (meta.is_symlink() || there.modified().ok() == meta.modified().ok())
    })
}

fn copy_file(from: &Path, to: &Path, meta: &fs::Metadata) -> std::io::Result<()> {
    if meta.is_symlink() {
        let _ = fs::remove_file(to);
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    fs::copy(from, to)?;
    fs::File::options().write(true).open(to)?.set_modified(meta.modified()?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn only_what_changed_is_copied_and_what_is_gone_goes() {
        let (tree, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let git = |arguments: &[&str]| {
            run::quiet(Command::new("git").arg("-C").arg(tree.path()).args(arguments)).unwrap();
        };
        git(&["init", "-q"]);
        for (name, text) in
            [("Kbuild", "a"), ("mm.c", "b"), ("old.c", "c"), (".gitignore", "*.o\n"), ("x.o", "d")]
        {
            fs::write(tree.path().join(name), text).unwrap();
        }
        let first = update(tree.path(), copy.path()).unwrap();
        assert_eq!((first.files, first.written), (4, 4));
        assert!(!copy.path().join("x.o").exists());
        let again = update(tree.path(), copy.path()).unwrap();
        assert_eq!((again.written, &again.state), (0, &first.state));

        fs::write(copy.path().join("mm.o"), "built").unwrap();
        fs::write(tree.path().join("mm.c"), "longer").unwrap();
        fs::remove_file(tree.path().join("old.c")).unwrap();
        let third = update(tree.path(), copy.path()).unwrap();
        assert_eq!((third.files, third.written), (3, 1));
        assert_ne!(third.state, first.state);
        assert!(!copy.path().join("old.c").exists());
        assert!(copy.path().join("mm.o").exists());
    }
}
