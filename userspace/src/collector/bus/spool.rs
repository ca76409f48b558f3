//! What waits for the bus, on disk: lines in segments, appended by the thread that watches, read by the one that sends.
//!
//! A line is in the kernel's memory when [`Spool::append`] returns: it outlives the process, whatever ends that, and not
//! the host. Nothing is synced: that would have detection wait for a disk. A process that is killed while it writes leaves
//! half a line, which the next one cuts off.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// Smallest room, in bytes.
pub const SMALLEST: u64 = 64 << 10;
/// Most bytes of a segment, and how many there are at least of a full spool.
const SEGMENT: u64 = 4 << 20;
const SEGMENTS: u64 = 8;
/// What a segment's name ends in.
const ENDING: &str = ".lines";
/// Where it is put down how much was sent.
const SENT: &str = "sent";
/// Held by the process that uses the spool.
const LOCK: &str = "lock";

/// The spool cannot be used, or takes no more.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The folder, or a file in it, cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error("{}: another process uses this spool: each agent needs one of its own", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// There is no room for more.
    #[error("the spool is full ({0} bytes)")]
    Full(u64),
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |source| SpoolError::File { path, source }
}

/// A place in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    segment: u64,
    offset: u64,
}

fn segment(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}{ENDING}"))
}

/// Numbers and sizes of the segments, oldest first.
fn segments(folder: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_suffix(ENDING)?.parse().ok()) {
            found.push((number, entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The end at which lines are appended.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    limit: u64,
    /// Bytes of all segments.
    used: Arc<AtomicU64>,
    end: Place,
    file: File,
    _lock: File,
}

impl Spool {
    /// Opens the spool in this folder, which is made if it is not there, with room for so many bytes; and the other end,
    /// with what was not sent before.
    ///
    /// # Errors
    /// The folder cannot be used, or another process uses it.
    pub fn open(folder: &Path, limit: u64) -> Result<(Self, Unsent), SpoolError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file(folder))?;
        let path = folder.join(LOCK);
        let lock = append_to(&path).map_err(file(&path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SpoolError::Taken { path: folder.to_owned() })?;
        let path = folder.join(SENT);
        let sent =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let sent = sent.map_err(file(&path))?;
        let mut bytes = [0; 16];
        // A new one is empty: from the beginning.
        let _ = sent.read_exact_at(&mut bytes, 0);
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let mut at = Place { segment: word(0), offset: word(8) };

        let mut found = segments(folder).map_err(file(folder))?;
        found.retain(|(number, _)| {
            *number >= at.segment || fs::remove_file(segment(folder, *number)).is_err()
        });
        match found.first() {
            Some((first, _)) if *first > at.segment => at = Place { segment: *first, offset: 0 },
            Some(_) => {}
            None => at = Place { segment: at.segment + 1, offset: 0 },
        }
        let last = found.last().map_or(at.segment, |(last, _)| *last);
        let path = segment(folder, last);
        let whole = cut(&path).map_err(file(&path))?;
        if let Some(last) = found.last_mut() {
            last.1 = whole;
        }
        let end = Place { segment: last, offset: whole };
        at = at.min(end);
        let used = Arc::new(AtomicU64::new(found.iter().map(|(_, size)| size).sum()));
        let opened = append_to(&path).map_err(file(&path))?;
        let spool = Self {
            folder: folder.to_owned(),
            limit,
            used: Arc::clone(&used),
            end,
            file: opened,
            _lock: lock,
        };
        let unsent = Unsent {
            folder: folder.to_owned(),
            used,
            sent,
            acknowledged: at,
            at,
            read: Vec::new(),
            taken: 0,
            file: None,
        };
        Ok((spool, unsent))
    }

    /// Appends a line, which ends in a line break and has no other.
    ///
    /// # Errors
    /// There is no room, in the spool or on the disk: the line is not in the spool.
    pub fn append(&mut self, line: &[u8]) -> Result<(), SpoolError> {
        let length = line.len() as u64;
        if self.used.load(Ordering::Acquire).saturating_add(length) > self.limit {
            return Err(SpoolError::Full(self.limit));
        }
        if self.end.offset >= (self.limit / SEGMENTS).min(SEGMENT) {
            self.next_segment()?;
        }
        if let Err(error) = self.file.write_all(line) {
            let failed = file(&segment(&self.folder, self.end.segment))(error);
            // Half of it may be there. What cannot be cut off ends this segment: readers leave it out.
            if self.file.set_len(self.end.offset).is_err() {
                self.next_segment()?;
            }
            return Err(failed);
        }
        self.end.offset += length;
        self.used.fetch_add(length, Ordering::AcqRel);
        Ok(())
    }

    fn next_segment(&mut self) -> Result<(), SpoolError> {
        let path = segment(&self.folder, self.end.segment + 1);
        self.file = append_to(&path).map_err(file(&path))?;
        self.end = Place { segment: self.end.segment + 1, offset: 0 };
        Ok(())
    }
}

/// Cuts half a line off the end of a file, and says how long it is.
fn cut(path: &Path) -> io::Result<u64> {
    let mut bytes = Vec::new();
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole != bytes.len() {
        file.set_len(whole as u64)?;
    }
    Ok(whole as u64)
}

/// The end at which lines are taken out.
#[derive(Debug)]
pub struct Unsent {
    folder: PathBuf,
    used: Arc<AtomicU64>,
    sent: File,
    /// What is before is done with.
    acknowledged: Place,
    /// Where the next line is that [`Self::next`] gives.
    at: Place,
    /// What was read from the segment, of which so much was given out.
    read: Vec<u8>,
    taken: usize,
    file: Option<File>,
}

impl Unsent {
    /// How many lines wait.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn count(&mut self) -> io::Result<u64> {
        let mut lines = 0;
        while self.next(|_| ())?.is_some() {
            lines += 1;
        }
        self.rewind();
        Ok(lines)
    }

    /// Hands the next line, without its line break, to `take`, and says where the one after it is. None: there is no
    /// more now.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn next<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> io::Result<Option<(Place, T)>> {
        loop {
            let left = &self.read[self.taken..];
            if let Some(end) = left.iter().position(|byte| *byte == b'\n') {
                let taken = take(&left[..end]);
                self.taken += end + 1;
                self.at.offset += end as u64 + 1;
                return Ok(Some((self.at, taken)));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads on. False: nothing is there yet.
    fn fill(&mut self) -> io::Result<bool> {
        // Before the last of this segment is read: a segment is finished when there is the next one.
        let is_finished = segment(&self.folder, self.at.segment + 1).exists();
        let file = match &self.file {
            Some(file) => file,
            None => match File::open(segment(&self.folder, self.at.segment)) {
                Ok(file) => self.file.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_finished => return Ok(false),
                Err(error) => return Err(error),
            },
        };
        self.read.drain(..self.taken);
        self.taken = 0;
        let before = self.read.len();
        self.read.resize(before + (64 << 10), 0);
        let from = self.at.offset + before as u64;
        let more = file.read_at(&mut self.read[before..], from);
        self.read.truncate(before + *more.as_ref().unwrap_or(&0));
        match more? {
            0 if is_finished => {
                self.go_to(Place { segment: self.at.segment + 1, offset: 0 });
                Ok(true)
            }
            0 => Ok(false),
            _ => Ok(true),
        }
    }

    fn go_to(&mut self, at: Place) {
        self.at = at;
        self.read.clear();
        self.taken = 0;
        self.file = None;
    }

    /// Goes back to the first line that was not acknowledged.
    pub fn rewind(&mut self) {
        self.go_to(self.acknowledged);
    }

    /// What is before this place is done with, also for who opens the spool after this process. Whole segments of it are
    /// removed.
    ///
    /// # Errors
    /// It cannot be put down: the lines are sent again one day.
    pub fn acknowledge(&mut self, to: Place) -> io::Result<()> {
        for number in self.acknowledged.segment..to.segment {
            let path = segment(&self.folder, number);
            let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            fs::remove_file(&path)?;
            self.used.fetch_sub(size, Ordering::AcqRel);
            self.acknowledged = Place { segment: number + 1, offset: 0 };
        }
        self.acknowledged = to;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&to.segment.to_le_bytes());
        bytes[8..].copy_from_slice(&to.offset.to_le_bytes());
        self.sent.write_all_at(&bytes, 0)
    }
}

#[cfg(test)]
mod tests;
