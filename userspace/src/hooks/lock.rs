//! One writer to one ledger: whoever loads the programs holds this lock for as long as they run.
//!
//! The kernel drops it with the process, however that ends: a lock file that is left behind locks nothing.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::trust::{self, TrustError};

/// Folder of what belongs to a running septwatch.
pub const RUN: &str = "/run/septwatch";

/// The lock cannot be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("another septwatch keeps the ledger of this host: {holder}; stop it first")]
    Held {
        /// Its process id and command, as it wrote them down.
        holder: String,
    },
    /// Others could put files of theirs in the place of ours.
    #[error(transparent)]
    Untrusted(#[from] TrustError),
    /// The file cannot be used.
    #[error("{path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The lock, held.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock for `command`.
    ///
    /// # Errors
    /// Another process holds it, or the folder is not to be written.
    pub fn take(command: &str) -> Result<Self, LockError> {
        Self::take_in(Path::new(RUN), command)
    }

    /// Who holds the lock, as that wrote itself down; none: nobody.
    ///
    /// From /proc/locks: trying the lock would stand in the way of somebody who takes it at that moment.
    pub fn holder() -> Option<String> {
        let path = Path::new(RUN).join("lock");
        // `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`
        let inode = format!(":{}", fs::metadata(&path).ok()?.ino());
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let mut held = locks.lines().map(|line| line.split_ascii_whitespace());
        let is_held = held.any(|mut words| {
            words.nth(1) == Some("FLOCK") && words.nth(3).is_some_and(|place| place.ends_with(&inode))
        });
        is_held.then(|| fs::read_to_string(&path).unwrap_or_default().trim().to_owned())
    }

    fn take_in(folder: &Path, command: &str) -> Result<Self, LockError> {
        let (mut file, path) = file(folder, "lock")?;
        let failed = |source| LockError::File { path: path.display().to_string(), source };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let holder = holder.trim();
                let holder = if holder.is_empty() { "it just started" } else { holder };
                return Err(LockError::Held { holder: holder.to_owned() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "pid {}, `septwatch {command}`", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// A file to be locked; what is in it stays.
fn file(folder: &Path, name: &str) -> Result<(File, PathBuf), LockError> {
    let path = folder.join(name);
    let failed = |source| LockError::File { path: path.display().to_string(), source };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    trust::folder(folder)?;
    // Not truncated before it is locked: what is in it is the holder's.
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&path)
        .map_err(failed)?;
    Ok((file, path))
}

/// Turns at the programs that walk TDs: of all processes of a host, one runs them at a time.
#[derive(Debug)]
pub struct Turns(File);

/// A turn; dropping it ends it.
#[derive(Debug)]
pub struct Turn<'a>(&'a File);

impl Turns {
    /// Opens the file that they are taken by.
    ///
    /// # Errors
    /// The folder is not to be written.
    pub fn open() -> Result<Self, LockError> {
        file(Path::new(RUN), "walk").map(|(file, _)| Self(file))
    }

    /// Waits for one.
    ///
    /// # Errors
    /// The kernel does not lock.
    pub fn take(&self) -> Result<Turn<'_>, LockError> {
        let taken = loop {
            match flock(&self.0, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                taken => break taken,
            }
        };
        let failed =
            |errno: rustix::io::Errno| LockError::File { path: format!("{RUN}/walk"), source: errno.into() };
        taken.map(|()| Turn(&self.0)).map_err(failed)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // It ends with the file at the latest.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first_and_a_file_left_behind_locks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("run");
        let first = Lock::take_in(&folder, "demo").unwrap();
        let refused = Lock::take_in(&folder, "watch").unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}, `septwatch demo`", std::process::id())), "{refused}");
        drop(first);
        Lock::take_in(&folder, "watch").unwrap();
    }

    #[test]
    fn what_others_can_write_is_no_place_for_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let refused = Lock::take_in(folder.path(), "demo").unwrap_err().to_string();
        assert!(refused.contains("mode 0777"), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("precious");
        fs::write(&target, "data").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join("lock")).unwrap();
        assert!(matches!(Lock::take_in(folder.path(), "demo"), Err(LockError::File { .. })));
        assert_eq!(fs::read_to_string(&target).unwrap(), "data");
    }
}
