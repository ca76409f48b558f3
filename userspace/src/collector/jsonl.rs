//! JSON lines, to standard output or to a file that is rotated: the objects of `septwatch watch --json`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::json;

use super::{message::Message, outlet::Peer};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, and those that it was before.
    File {
        /// Its path.
        path: PathBuf,
        /// Size in bytes from which on it becomes `PATH.1`, and that `PATH.2`.
        rotate_bytes: u64,
        /// Files of earlier that are kept.
        keep: u32,
    },
}

/// Writes lines.
#[derive(Debug)]
pub struct JsonLines {
    target: Target,
    file: Option<File>,
    reopen: Arc<AtomicBool>,
}

impl JsonLines {
    /// Begins. Whoever sets `reopen` wants the file to be opened again by its path, as after logrotate(8) renamed it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn begin(target: Target, reopen: Arc<AtomicBool>) -> io::Result<Self> {
        let file = match &target {
            // Not through io::stdout, whose lock whoever runs the command has.
            Target::Stdout => Some(File::from(rustix::stdio::stdout().try_clone_to_owned()?)),
            Target::File { path, .. } => Some(open(path)?),
        };
        Ok(Self { target, file, reopen })
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        let (path, rotate_bytes, keep) = match (&self.target, &mut self.file) {
            (Target::File { path, rotate_bytes, keep }, _) => (path, rotate_bytes, keep),
            (Target::Stdout, Some(stdout)) => return stdout.write_all(lines.as_bytes()),
            (Target::Stdout, None) => return Err(io::ErrorKind::NotConnected.into()),
        };
        if self.reopen.swap(false, Ordering::AcqRel) {
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(path)?),
        };
        let length = file.stream_position()?;
        let file = if length != 0 && length.saturating_add(lines.len() as u64) > *rotate_bytes {
            rotate(path, *keep)?;
            self.file.insert(open(path)?)
        } else {
            file
        };
        let length = file.stream_position()?;
        file.write_all(lines.as_bytes()).inspect_err(|_| {
            // Half a line would spoil the next one, too.
            let _ = file.set_len(length);
            let _ = file.seek(io::SeekFrom::End(0));
        })
    }
}

impl Peer for JsonLines {
    fn deliver(&mut self, message: &Message, lost: u64) -> io::Result<()> {
        let gap = (lost != 0).then(|| format!("{}\n", json!({"type": "lost", "events": lost})));
        self.write(&format!("{}{}\n", gap.unwrap_or_default(), message.line))
    }
}

/// Opens a file to append to it. Its lines tell what runs on this host: not everybody's business.
fn open(path: &Path) -> io::Result<File> {
    // A pipe that nobody reads would hold up the thread that watches.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("a pipe, not a file; `-` is standard output"));
    }
    file.seek(io::SeekFrom::End(0))?;
    Ok(file)
}

/// Makes room at `path`: each file of earlier becomes one older, and the oldest goes.
fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if keep == 0 {
        return fs::remove_file(path);
    }
    for number in (1..keep).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use serde_json::Value;

    use super::*;
    use crate::collector::message::tests::message;

    fn numbers(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let parsed = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        parsed.map(|object| object["tid"].as_u64().or(object["events"].as_u64()).unwrap()).collect()
    }

    fn begin(path: &Path, rotate_bytes: u64, keep: u32) -> (JsonLines, Arc<AtomicBool>) {
        let reopen = Arc::default();
        let target = Target::File { path: path.to_owned(), rotate_bytes, keep };
        (JsonLines::begin(target, Arc::clone(&reopen)).unwrap(), reopen)
    }

    #[test]
    fn files_are_rotated_and_only_so_many_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let line = message(1).line.len() as u64 + 1;
        let (mut lines, _) = begin(&path, 2 * line, 2);
        for _ in 0..9 {
            lines.deliver(&message(1), 0).unwrap();
        }
        let mut have: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        have.sort();
        assert_eq!(have, ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]);
        let counts = have.iter().map(|name| numbers(&folder.path().join(name)).len()).collect::<Vec<_>>();
        assert_eq!(counts, [1, 2, 2]);
        // Another process goes on where this one ended.
        drop(lines);
        let (mut lines, _) = begin(&path, 2 * line, 0);
        lines.deliver(&message(1), 0).unwrap();
        assert_eq!(numbers(&path).len(), 2);
        lines.deliver(&message(1), 7).unwrap();
        assert_eq!(numbers(&path)[0], 7, "what was lost before stands before");
    }

    #[test]
    fn a_file_that_somebody_renamed_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, renamed) = (folder.path().join("events"), folder.path().join("renamed"));
        let (mut lines, reopen) = begin(&path, 1 << 30, 1);
        lines.deliver(&message(1), 0).unwrap();
        fs::rename(&path, &renamed).unwrap();
        reopen.store(true, Ordering::Release);
        lines.deliver(&message(1), 0).unwrap();
        assert_eq!((numbers(&path).len(), numbers(&renamed).len()), (1, 1));
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_half_line_stays() {
        let path = Path::new("/dev/full");
        let (mut lines, _) = begin(path, u64::MAX, 1);
        let error = lines.deliver(&message(1), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_pipe_is_refused_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        // ENXIO: nobody reads.
        assert_eq!(open(&pipe).unwrap_err().raw_os_error(), Some(libc::ENXIO));
        let _reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        assert!(open(&pipe).unwrap_err().to_string().starts_with("a pipe, not a file"));
    }
}
