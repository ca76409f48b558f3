//! Whether a file or a folder is one that only root and the user of this process decide about, as a policy or a
//! configuration; or read, as a key.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Largest file that is read whole, in bytes: certificates, keys, credentials.
const LARGEST: u64 = 1 << 20;
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

/// It must not be followed.
#[derive(Debug, Error)]
pub enum TrustError {
    /// It, or a folder that leads to it, cannot be looked at.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than root and this user decide about it.
    #[error("{}: {what}", path.display())]
    Untrusted {
        /// What they decide about.
        path: PathBuf,
        /// How they do.
        what: String,
    },
}

/// Opens what may be no file: a pipe must not keep us waiting.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Reads a file whole. Neither a pipe that nobody writes to nor a file without end may keep the thread waiting: it may be
/// the one that watches.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(path: &Path) -> Result<(Metadata, Vec<u8>), String> {
    let failed = |error: io::Error| error.to_string();
    let opened = open(path).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    opened.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("more than {LARGEST} bytes"));
    }
    Ok((metadata, bytes))
}

/// The same for what nobody else may read.
///
/// # Errors
/// As for [`read`], or others may read it.
pub fn secret(path: &Path) -> Result<Vec<u8>, String> {
    let (metadata, bytes) = read(path)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("others may read it (mode {mode:04o}): chmod 0600"));
    }
    Ok(bytes)
}

/// Whether nobody but root and this user can change the file that was opened, or put another in its place.
///
/// # Errors
/// Others can, or it cannot be looked at.
pub fn check(path: &Path, file: &File) -> Result<(), TrustError> {
    let unreadable = |path: &Path, source| TrustError::File { path: path.to_owned(), source };
    let untrusted = |path: &Path, what: String| TrustError::Untrusted { path: path.to_owned(), what };
    let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
    if !metadata.is_file() {
        return Err(untrusted(path, "not a regular file".to_owned()));
    }
    if let Some(owner) = stranger(&metadata) {
        return Err(untrusted(path, format!("owned by uid {owner}: it must be root's or yours (chown)")));
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(untrusted(path, format!("others can write it (mode {mode:04o}): chmod go-w")));
    }
    folders(path).map_err(|error| unreadable(path, error))?.iter().try_for_each(|folder| check_one(folder))
}

/// Whether nobody but root and this user can change what is in a folder, or put another in its place.
///
/// # Errors
/// As for [`check`].
pub fn folder(path: &Path) -> Result<(), TrustError> {
    let unreadable = |source| TrustError::File { path: path.to_owned(), source };
    folders(path).map_err(unreadable)?.iter().try_for_each(|folder| check_one(folder))?;
    check_one(path)
}

fn check_one(folder: &Path) -> Result<(), TrustError> {
    let path = || folder.to_owned();
    let metadata = fs::metadata(folder).map_err(|source| TrustError::File { path: path(), source })?;
    let mode = metadata.mode() & 0o7777;
    let what = if let Some(owner) = stranger(&metadata) {
        format!("a folder of uid {owner}, who can put other things into it: it must be root's or yours")
    } else if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        format!("others can put other things into this folder (mode {mode:04o}): chmod go-w")
    } else {
        return Ok(());
    };
    Err(TrustError::Untrusted { path: path(), what })
}

/// The owner, if it is neither root nor this user.
fn stranger(metadata: &Metadata) -> Option<u32> {
    let owner = metadata.uid();
    (owner != 0 && owner != rustix::process::geteuid().as_raw()).then_some(owner)
}

/// Every folder that leads to the file, and to the link if its name is one.
fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let parent = path.parent().filter(|parent| parent.as_os_str() != OsStr::new(""));
    let named = fs::canonicalize(parent.unwrap_or(Path::new(".")))?;
    let real = fs::canonicalize(path)?;
    let mut folders: Vec<_> = named.ancestors().chain(real.ancestors().skip(1)).map(Path::to_owned).collect();
    folders.sort();
    folders.dedup();
    Ok(folders)
}
