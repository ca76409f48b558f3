//! What lives on when the process dies: programs, links and maps pinned in the bpffs, under a folder that is named
//! after the programs.
//!
//! Two septwatch with other programs have other folders: pins are found by name, and the kernel does not compare what
//! it finds with what was expected. A folder is complete when the note beside the lock says so; an incomplete one is
//! what a process left that died while it attached, and is removed.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::statfs;
use serde::{Deserialize, Serialize};

use super::{
    bpf::{self, BpfError},
    lock::RUN,
    reactions::Needs,
};
use crate::trust::{self, TrustError};

/// Where the kernel shows objects under names.
pub const BPFFS: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Hash of the programs in this binary.
const PROGRAMS: &str = env!("SEPTWATCH_PROGRAMS");

/// Pinning failed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Names cannot be made or removed.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could put pins of theirs in the place of ours.
    #[error("pins are not safe there: {0}")]
    Untrusted(#[from] TrustError),
    /// The kernel refuses to pin, or to open what is pinned.
    #[error("{path}: {source}", path = path.display())]
    Object {
        /// Which.
        path: PathBuf,
        /// Why.
        source: BpfError,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PinError {
    move |source| PinError::File { path: path.to_owned(), source }
}

/// A hook of the plan, as it is told to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookNote {
    /// Its name, the same on all kernels.
    pub name: String,
    /// How it was attached; none where it was not.
    pub bound: Option<String>,
    /// Why it was not attached.
    pub missing: Option<String>,
}

/// What is written down of a ledger that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Hash of the programs.
    pub programs: String,
    /// Hooks of the plan.
    pub hooks: usize,
    /// Those of them that are attached.
    pub attached: usize,
    /// Whether the programs measure how long SEAMCALLs take.
    pub latency: bool,
    /// Reactions whose programs are attached.
    pub reactions: Needs,
    /// The plan, for who takes over: to make it again takes longer than all the rest.
    pub plan: Vec<HookNote>,
}

/// A folder of pins.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    note: PathBuf,
}

impl Note {
    /// Of this version's programs.
    pub fn new(hooks: usize, attached: usize, latency: bool, reactions: Needs, plan: Vec<HookNote>) -> Self {
        Self { programs: PROGRAMS.to_owned(), hooks, attached, latency, reactions, plan }
    }
}

impl Pins {
    fn at(bpffs: &Path, run: &Path) -> Self {
        Self { folder: bpffs.join("septwatch").join(PROGRAMS), note: run.join("ledger.json") }
    }

    /// Whether nobody else could have put pins there. What somebody made before us is theirs.
    fn trusted(&self) -> Result<(), TrustError> {
        let there = self.folder.ancestors().find(|folder| folder.exists());
        there.map_or(Ok(()), trust::folder)
    }

    /// The ledger that a process with these programs has left running, if nobody else could have made it.
    pub fn left() -> Option<(Self, Note)> {
        let pins = Self::at(BPFFS.as_ref(), RUN.as_ref());
        let note: Note = serde_json::from_slice(&fs::read(&pins.note).ok()?).ok()?;
        let is_there = note.programs == PROGRAMS && pins.folder.is_dir() && pins.trusted().is_ok();
        is_there.then_some((pins, note))
    }

    /// A new, empty folder; what is left of any other is removed, and so detached. None: there is no bpffs.
    ///
    /// Whether there was another ledger comes with it.
    ///
    /// # Errors
    /// The folder cannot be made, or the old one not removed, or others can write there.
    pub fn fresh() -> Result<Option<(Self, bool)>, PinError> {
        let is_bpffs = statfs(BPFFS).is_ok_and(|stat| stat.f_type & 0xffff_ffff == BPF_FS_MAGIC);
        if !is_bpffs {
            return Ok(None);
        }
        let pins = Self::at(BPFFS.as_ref(), RUN.as_ref());
        pins.trusted()?;
        let mut others = false;
        if let Some(all) = pins.folder.parent() {
            for entry in fs::read_dir(all).into_iter().flatten().flatten() {
                others = true;
                Self { folder: entry.path(), note: pins.note.clone() }.remove()?;
            }
        }
        for kind in ["maps", "programs", "links"] {
            let folder = pins.folder.join(kind);
            fs::create_dir_all(&folder).map_err(failed(&folder))?;
        }
        Ok(Some((pins, others)))
    }

    fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.folder.join(kind).join(name)
    }

    fn pin(&self, kind: &str, name: &str, object: BorrowedFd<'_>) -> Result<(), PinError> {
        let path = self.path(kind, name);
        bpf::pin(object, &path).map_err(|source| PinError::Object { path, source })
    }

    /// Pins a map.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn map(&self, name: &str, map: BorrowedFd<'_>) -> Result<(), PinError> {
        self.pin("maps", name, map)
    }

    /// Pins a program.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn program(&self, name: &str, program: BorrowedFd<'_>) -> Result<(), PinError> {
        self.pin("programs", name, program)
    }

    /// Pins a link.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn link(&self, name: &str, link: BorrowedFd<'_>) -> Result<(), PinError> {
        self.pin("links", name, link)
    }

    /// Takes a link's pin away, if there is one.
    pub fn drop_link(&self, name: &str) {
        let _ = fs::remove_file(self.path("links", name));
    }

    /// A pinned link.
    pub fn left_link(&self, name: &str) -> Option<OwnedFd> {
        bpf::open(&self.path("links", name)).ok()
    }

    /// Path of a link's pin.
    pub fn link_path(&self, name: &str) -> PathBuf {
        self.path("links", name)
    }

    /// A pinned map's path.
    pub fn map_path(&self, name: &str) -> PathBuf {
        self.path("maps", name)
    }

    /// Every pinned program.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn programs(&self) -> Result<Vec<(String, OwnedFd)>, PinError> {
        let folder = self.folder.join("programs");
        let entries = fs::read_dir(&folder).map_err(failed(&folder))?;
        entries
            .map(|entry| {
                let entry = entry.map_err(failed(&folder))?;
                let path = entry.path();
                let program = bpf::open(&path).map_err(|source| PinError::Object { path, source })?;
                Ok((entry.file_name().to_string_lossy().into_owned(), program))
            })
            .collect()
    }

    /// Writes down that everything is there: from now on another process can take over.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn complete(&self, note: &Note) -> Result<(), PinError> {
        let text = serde_json::to_string(note).map_err(|error| failed(&self.note)(error.into()))?;
        // Whole or not at all.
        let part = self.note.with_extension("part");
        fs::write(&part, text).map_err(failed(&part))?;
        fs::rename(&part, &self.note).map_err(failed(&self.note))
    }

    /// Removes everything: what no process holds is detached.
    ///
    /// # Errors
    /// A name cannot be removed.
    pub fn remove(&self) -> Result<(), PinError> {
        match fs::remove_file(&self.note) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&self.note)(error)),
            _ => {}
        }
        fs::remove_dir_all(&self.folder).map_err(failed(&self.folder))
    }
}

/// A descriptor of our own of something that somebody else holds.
pub(super) fn own(object: &impl AsFd, path: &Path) -> Result<OwnedFd, PinError> {
    object.as_fd().try_clone_to_owned().map_err(failed(path))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn pins_that_somebody_else_could_have_made_are_not_taken_for_ours() {
        let bpffs = tempfile::tempdir().unwrap();
        let pins = Pins::at(bpffs.path(), bpffs.path());
        let refused = || pins.trusted().unwrap_err().to_string();
        // As /tmp, where each can make what nobody has made, and change nothing else.
        fs::set_permissions(bpffs.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        pins.trusted().unwrap();
        fs::create_dir_all(&pins.folder).unwrap();
        pins.trusted().unwrap();
        fs::set_permissions(bpffs.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refused().contains("mode 0777"), "{}", refused());
        fs::set_permissions(bpffs.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let all = pins.folder.parent().unwrap();
        fs::set_permissions(all, fs::Permissions::from_mode(0o775)).unwrap();
        assert!(refused().contains(all.to_str().unwrap()), "{}", refused());
        fs::set_permissions(all, fs::Permissions::from_mode(0o755)).unwrap();
        if chown(&pins.folder, Some(65534), None).is_err() {
            eprintln!("skipped: only root can give a folder away");
            return;
        }
        assert!(refused().contains("a folder of uid 65534"), "{}", refused());
        chown(&pins.folder, Some(0), None).unwrap();
        chown(all, Some(65534), None).unwrap();
        assert!(refused().contains("a folder of uid 65534"), "{}", refused());
    }
}
