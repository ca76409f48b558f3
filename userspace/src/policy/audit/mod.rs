//! The audit log: what was asked for, what was done and when, and who armed, disarmed and released.
//!
//! JSON lines, one file per UTC day, that can only be appended to. There is no switch for it: where a line cannot be
//! written, nothing that acts is done.

mod line;
mod read;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, IFlags, fallocate, ioctl_getflags, ioctl_setflags},
    io::Errno,
};
use serde::Serialize;
use thiserror::Error;

pub use line::{By, Done, Event, EventKind, Line, Step, Who};
pub use read::{Day, days, last, read};

use crate::{export::rows::rfc3339, recording::header::Clock};

/// Where the log is, unless somebody says otherwise.
pub const FOLDER: &str = "/var/log/septwatch";

/// Room that is taken ahead of the lines to come, so that a full disk is known before something is done. In bytes.
const AHEAD: u64 = 64 * 1024;
/// When less than this is left of it, more is taken.
const LOW: u64 = 16 * 1024;

/// The log cannot be kept.
#[derive(Debug, Error)]
pub enum AuditError {
    /// A file or folder cannot be used.
    #[error("the audit log {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could be changed by others, or is no file.
    #[error("the audit log {path}: {why}")]
    Unsafe {
        /// Which.
        path: String,
        /// Why, and what would be right.
        why: &'static str,
    },
}

/// The log, open.
#[derive(Debug)]
pub struct Audit {
    folder: PathBuf,
    day: Option<Today>,
}

/// The file of a day.
#[derive(Debug)]
struct Today {
    name: String,
    file: File,
    /// Up to where there is room for sure.
    room: u64,
}

impl Audit {
    /// The log in this folder, which is made if need be, for its owner alone.
    ///
    /// # Errors
    /// It cannot be written, or others can write it.
    pub fn open(folder: &Path) -> Result<Self, AuditError> {
        let failed = failed(folder);
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let seen = fs::symlink_metadata(folder).map_err(failed)?;
        let unsafe_folder = |why| AuditError::Unsafe { path: folder.display().to_string(), why };
        if !seen.is_dir() {
            return Err(unsafe_folder("not a folder; links are not followed"));
        }
        if seen.uid() != rustix::process::geteuid().as_raw() || seen.mode() & 0o022 != 0 {
            return Err(unsafe_folder("others can write it: it must be this user's, with mode 0700"));
        }
        let mut audit = Self { folder: folder.to_owned(), day: None };
        audit.ready()?;
        Ok(audit)
    }

    /// A log of which no file can be made.
    #[cfg(test)]
    pub(super) fn lost(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), day: None }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes sure that the next lines can be written: before something is done.
    ///
    /// # Errors
    /// They cannot.
    pub fn ready(&mut self) -> Result<(), AuditError> {
        let (today, path) = self.today(Clock::now().realtime_ns)?;
        let failed = failed(&path);
        let end = today.file.metadata().map_err(failed)?.len();
        if today.room >= end + LOW {
            return Ok(());
        }
        // What is beyond the end does not show: the file is as long as its lines.
        match fallocate(&today.file, FallocateFlags::KEEP_SIZE, end, AHEAD) {
            // Not every file system can: then a full disk shows at the line itself.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                today.room = end + AHEAD;
                Ok(())
            }
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Writes a line. With `sync` it is on the disk when this returns.
    ///
    /// # Errors
    /// It cannot be written; the next is tried afresh.
    pub fn write(&mut self, line: &Line, sync: bool) -> Result<(), AuditError> {
        let result = self.append(line, sync);
        if result.is_err() {
            self.day = None;
        }
        result
    }

    fn append(&mut self, line: &Line, sync: bool) -> Result<(), AuditError> {
        let now = Clock::now();
        let (today, path) = self.today(now.realtime_ns)?;
        let stamped = Stamped { time: rfc3339(now.realtime_ns), monotonic_ns: now.monotonic_ns, line };
        let mut write = || {
            let mut text = serde_json::to_vec(&stamped)?;
            text.push(b'\n');
            // One call: a line of another process does not come in between.
            let written = today.file.write(&text)?;
            if written != text.len() {
                return Err(io::Error::new(io::ErrorKind::WriteZero, "only a part of a line was written"));
            }
            if sync { today.file.sync_data() } else { Ok(()) }
        };
        write().map_err(failed(&path))
    }

    /// The file of the day of this moment.
    fn today(&mut self, realtime_ns: u64) -> Result<(&mut Today, PathBuf), AuditError> {
        let name = format!("{}.jsonl", &rfc3339(realtime_ns)[..10]);
        let path = self.folder.join(&name);
        let open = match self.day.take() {
            Some(open) if open.name == name && is_still(&open.file, &path) => open,
            _ => Today { file: open(&path)?, name, room: 0 },
        };
        Ok((self.day.insert(open), path))
    }
}

/// A line with its time.
#[derive(Serialize)]
struct Stamped<'a> {
    time: String,
    monotonic_ns: u64,
    #[serde(flatten)]
    line: &'a Line,
}

/// Whether a path still leads to this file: lines must not go where nobody finds them.
fn is_still(file: &File, path: &Path) -> bool {
    let (open, named) = (file.metadata(), fs::symlink_metadata(path));
    open.ok()
        .zip(named.ok())
        .is_some_and(|(open, named)| (open.dev(), open.ino()) == (named.dev(), named.ino()))
}

fn open(path: &Path) -> Result<File, AuditError> {
    let failed = failed(path);
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let seen = file.metadata().map_err(failed)?;
    let unsafe_file = |why| AuditError::Unsafe { path: path.display().to_string(), why };
    if !seen.is_file() {
        return Err(unsafe_file("not a file"));
    }
    if seen.uid() != rustix::process::geteuid().as_raw() || seen.mode() & 0o022 != 0 || seen.nlink() != 1 {
        return Err(unsafe_file("others can write it: it must be this user's, with mode 0600 and one name"));
    }
    // Not every file system has the flag, and not every root may set it: O_APPEND is what remains.
    if let Ok(flags) = ioctl_getflags(&file)
        && !flags.contains(IFlags::APPEND)
    {
        let _ = ioctl_setflags(&file, flags | IFlags::APPEND);
    }
    // A crash may have torn the last line: the next begins on its own.
    let mut last = [b'\n'];
    if seen.len() != 0 {
        file.read_exact_at(&mut last, seen.len() - 1).map_err(failed)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n").map_err(failed)?;
    }
    Ok(file)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> AuditError + Copy + '_ {
    move |source| AuditError::File { path: path.display().to_string(), source }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
