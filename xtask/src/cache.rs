//! Where septwatch keeps what it fetches and builds outside the tree. The one place of that rule: xtask has it as
//! a module, and `userspace/build.rs` takes it in with `#[path]`, so that a plain `cargo build` finds the linker
//! that `cargo xtask setup` made. std only; nothing else may enter.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// The bpf-linker that is set up. 0.10.4 is the last that uses the compiler's own libLLVM; later ones need the
/// system's.
pub const BPF_LINKER_VERSION: &str = "0.10.3";

/// The cache folder: `$XDG_CACHE_HOME/septwatch`, else `$HOME/.cache/septwatch`.
///
/// # Errors
/// Neither variable holds an absolute path.
pub fn root() -> io::Result<PathBuf> {
    // A relative XDG_CACHE_HOME is invalid and to be ignored (XDG Base Directory Specification).
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("septwatch"))
        .ok_or_else(|| io::Error::other("no cache folder: set HOME or XDG_CACHE_HOME to an absolute path"))
}

/// The folder of the cache in which this compiler's `bpf-linker` is or will be, for use in front of `PATH`.
///
/// It is keyed by compiler because the linker loads the libLLVM of the one that built it.
///
/// # Errors
/// No cache folder, or `rustc` (a path, or a name looked up in `PATH`) does not tell its version.
pub fn bpf_linker_bin(rustc: &OsStr) -> io::Result<PathBuf> {
    let version = rustc_version(rustc)?;
    let field = |name| version.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let (Some(release), Some(commit)) = (field("release: "), field("commit-hash: ")) else {
        return Err(io::Error::other(format!("`rustc -vV` has no release and commit: {version}")));
    };
    let commit = commit.get(..9).unwrap_or(commit);
    Ok(root()?.join(format!("bpf-linker-{BPF_LINKER_VERSION}-rustc-{release}-{commit}")).join("bin"))
}

/// What `rustc -vV` prints.
///
/// # Errors
/// The compiler cannot be run, or fails.
pub fn rustc_version(rustc: &OsStr) -> io::Result<String> {
    let output = Command::new(rustc).arg("-vV").output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("`{} -vV` failed: {}", rustc.display(), output.status)));
    }
    String::from_utf8(output.stdout).map_err(io::Error::other)
}
