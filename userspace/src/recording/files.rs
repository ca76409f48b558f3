//! The files of a recording: one, or several in turn, or none until a violation happens.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    State,
    follow::Follow,
    header::{Clock, End, Header, Why},
    names,
    recorder::Block,
    writer::{Packed, Packer, Writer},
};

/// A recording cannot be begun.
#[derive(Debug, Error)]
pub enum FileError {
    /// Its file cannot be made.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no memory to compress in.
    #[error("the recorder: {0}")]
    Packer(#[source] io::Error),
    /// There is no thread to write on.
    #[error("the recorder's thread: {0}")]
    Thread(#[source] io::Error),
}

/// When a new file begins, and how much all of them may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// A file of this many bytes is ended, and the next begun.
    pub file_bytes: Option<u64>,
    /// The same for a file that is this old.
    pub file_age: Option<Duration>,
    /// The oldest files are removed as long as all take more than this many bytes.
    pub disk_bytes: Option<u64>,
}

impl Limits {
    /// Whether there is more than one file.
    pub fn rotates(&self) -> bool {
        self.file_bytes.is_some() || self.file_age.is_some()
    }
}

/// What is kept in memory until a violation happens.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// As much as happened in this time.
    pub last: Duration,
    /// At most so many bytes of it.
    pub bytes: u64,
    /// Recorded after a violation.
    pub after: Duration,
}

/// What came of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files, oldest first, without those that were removed again.
    pub files: Vec<PathBuf>,
    /// Records in all files.
    pub records: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Records that arrived and are in no file.
    pub unwritten: u64,
    /// Of a ring, whether what it holds reaches back less far than it should, for want of memory.
    pub short: bool,
    /// Why it could not be written to its end.
    pub failed: Option<String>,
}

struct Open {
    writer: Writer<File>,
    path: PathBuf,
    since: Instant,
}

/// Where blocks go.
pub struct Files {
    path: PathBuf,
    header: Header,
    state: State,
    limits: Limits,
    ring: Option<Ring>,
    packer: Packer,
    open: Option<Open>,
    /// The ledger and the model at the point where the next file would begin; none where there is but one.
    follow: Option<Follow>,
    /// What the ring holds, with the time of each block's last event, and the bytes of it.
    held: VecDeque<(Packed, u64)>,
    held_bytes: u64,
    /// When what follows a violation is over, in ns of CLOCK_MONOTONIC.
    until_ns: u64,
    part: u32,
    written: Written,
}

impl Files {
    /// One file, or several in turn: then their names have a number before the extension.
    ///
    /// # Errors
    /// The first cannot be made.
    pub fn create(path: &Path, header: Header, state: State, limits: Limits) -> Result<Self, FileError> {
        let mut files = Self::new(path, header, state, limits, None)?;
        if let Some(follow) = limits.rotates().then(|| Follow::new(&files.header, &files.state)) {
            files.follow = Some(follow);
        }
        let (header, state) = (files.header.clone(), files.state.clone());
        files.open(header, &state).map_err(|(path, source)| FileError::File { path, source })?;
        Ok(files)
    }

    /// A file for each violation, with what happened before it.
    ///
    /// # Errors
    /// Files cannot be made there.
    pub fn on_violation(
        path: &Path,
        header: Header,
        state: State,
        limits: Limits,
        ring: Ring,
    ) -> Result<Self, FileError> {
        let mut files = Self::new(path, header, state, limits, Some(ring))?;
        files.follow = Some(Follow::new(&files.header, &files.state));
        // Not only when it is too late.
        let probe = files.next_path();
        let made = names::make(&probe).and_then(|_| fs::remove_file(&probe));
        made.map_err(|source| FileError::File { path: probe, source })?;
        Ok(files)
    }

    fn new(
        path: &Path,
        header: Header,
        state: State,
        limits: Limits,
        ring: Option<Ring>,
    ) -> Result<Self, FileError> {
        let mut files = Self {
            path: path.to_owned(),
            header,
            state,
            limits,
            ring,
            packer: Packer::new().map_err(FileError::Packer)?,
            open: None,
            follow: None,
            held: VecDeque::new(),
            held_bytes: 0,
            until_ns: 0,
            part: 0,
            written: Written::default(),
        };
        if files.is_several() {
            let earlier = names::earlier(path);
            files.part = earlier.last().map_or(0, |(number, _)| number + 1);
            files.written.files = earlier.into_iter().map(|(_, path)| path).collect();
        }
        Ok(files)
    }

    fn is_several(&self) -> bool {
        self.limits.rotates() || self.ring.is_some()
    }

    /// Whether the disk takes nothing any more.
    pub fn has_failed(&self) -> bool {
        self.written.failed.is_some()
    }

    fn next_path(&self) -> PathBuf {
        if self.is_several() { names::numbered(&self.path, self.part) } else { self.path.clone() }
    }

    fn open(&mut self, mut header: Header, state: &State) -> Result<(), (PathBuf, io::Error)> {
        let path = self.next_path();
        header.part = self.part;
        let begun = names::make(&path).and_then(|file| Writer::begin(file, &mut self.packer, &header, state));
        let writer = match begun {
            Ok(writer) => writer,
            Err(source) => return Err((path, source)),
        };
        self.part += 1;
        self.written.files.push(path.clone());
        self.open = Some(Open { writer, path, since: Instant::now() });
        Ok(())
    }

    /// The next file begins with what is known by now.
    fn open_next(&mut self) {
        let follow = self.follow.as_ref();
        let (before, state) =
            follow.map_or_else(|| (self.header.before.clone(), self.state.clone()), Follow::state);
        let header = Header { clock: Clock::now(), before, ..self.header.clone() };
        if let Err((path, error)) = self.open(header, &state) {
            self.written.failed = Some(format!("{}: {error}", path.display()));
        }
        self.make_room();
    }

    /// Writes a block, or keeps it.
    pub fn block(&mut self, block: Block) {
        let records = u64::from(block.records);
        if self.has_failed() {
            self.written.unwritten += records;
            return;
        }
        let packed = self.packer.pack(&block.bytes, block.records);
        let Ok(packed) = packed.map_err(|error| self.fail(&error)) else {
            self.written.unwritten += records;
            return;
        };
        if self.ring.is_some() && self.open.is_none() {
            self.hold(packed, &block);
        } else {
            self.write(packed, &block);
        }
    }

    fn hold(&mut self, packed: Packed, block: &Block) {
        let Some(ring) = self.ring else { return };
        self.held_bytes += packed.len() as u64;
        self.held.push_back((packed, block.time_ns));
        if block.violation {
            self.open_next();
            self.until_ns = block.time_ns + ring.after.as_nanos() as u64;
            self.held_bytes = 0;
            for (packed, _) in std::mem::take(&mut self.held) {
                self.follow(&packed);
                self.put(packed, true);
            }
            return;
        }
        let oldest = block.time_ns.saturating_sub(ring.last.as_nanos() as u64);
        while let Some((packed, last_ns)) = self.held.front() {
            let full = self.held_bytes > ring.bytes;
            if *last_ns >= oldest && !full {
                break;
            }
            self.written.short |= full && *last_ns >= oldest;
            self.held_bytes -= packed.len() as u64;
            if let Some((packed, _)) = self.held.pop_front() {
                self.follow(&packed);
            }
        }
    }

    fn write(&mut self, packed: Packed, block: &Block) {
        self.follow(&packed);
        self.put(packed, block.violation);
        let Some(open) = &self.open else { return };
        let old = self.limits.file_age.is_some_and(|age| open.since.elapsed() >= age);
        let large = self.limits.file_bytes.is_some_and(|bytes| open.writer.written() >= bytes);
        if let Some(ring) = self.ring {
            if block.violation {
                self.until_ns = block.time_ns + ring.after.as_nanos() as u64;
            } else if block.time_ns >= self.until_ns {
                self.close(End { why: Why::Violation, ..End::default() });
            }
        } else if old || large {
            self.close(End { why: Why::Rotated, ..End::default() });
            self.open_next();
        }
    }

    fn follow(&mut self, packed: &Packed) {
        if let Some(follow) = &mut self.follow {
            follow.take(packed);
        }
    }

    /// Appends to the file that is open.
    fn put(&mut self, mut packed: Packed, sync: bool) {
        let records = u64::from(packed.records);
        let Some(open) = &mut self.open else {
            self.written.unwritten += records;
            return;
        };
        let mut put = open.writer.records(&mut packed);
        if sync {
            // The violation may be the last thing that this host does.
            put = put.and_then(|()| open.writer.output().sync_data());
        }
        match put {
            Ok(()) => self.written.records += records,
            Err(error) => {
                self.written.unwritten += records;
                self.fail(&error);
            }
        }
    }

    /// What was written stays whole: half a frame is taken away again, and the end is said if there is room for it.
    fn fail(&mut self, error: &io::Error) {
        let Some(mut open) = self.open.take() else {
            self.written.failed = Some(error.to_string());
            return;
        };
        self.written.failed = Some(format!("{}: {error}", open.path.display()));
        let whole = open.writer.written();
        let end = End {
            why: Why::WriteFailed,
            clock: Clock::now(),
            unwritten: self.written.unwritten,
            counted: None,
        };
        let cut = |open: &mut Open| {
            let file = open.writer.output();
            file.set_len(whole)?;
            io::Seek::seek(file, io::SeekFrom::Start(whole)).map(drop)
        };
        if cut(&mut open).is_ok() && open.writer.end(&mut self.packer, &end).is_err() {
            // Half an end is none.
            let _ = cut(&mut open);
        }
        self.written.bytes += open.writer.written();
    }

    fn close(&mut self, mut end: End) {
        let Some(mut open) = self.open.take() else { return };
        if end.clock == Clock::default() {
            end.clock = Clock::now();
        }
        match open.writer.end(&mut self.packer, &end).and_then(|()| open.writer.output().sync_data()) {
            Ok(()) => self.written.bytes += open.writer.written(),
            Err(error) => {
                self.open = Some(open);
                self.fail(&error);
            }
        }
        self.make_room();
    }

    /// Removes the oldest files as long as there are too many bytes.
    fn make_room(&mut self) {
        let Some(limit) = self.limits.disk_bytes else { return };
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut total: u64 = self.written.files.iter().map(size).sum();
        while total > limit && self.written.files.len() > 1 {
            let oldest = self.written.files.remove(0);
            total -= size(&oldest);
            // What cannot be removed now will not be tried again: it is somebody else's by then.
            let _ = fs::remove_file(oldest);
        }
    }

    /// Ends the recording.
    pub fn end(mut self, mut end: End) -> Written {
        end.unwritten += self.written.unwritten;
        self.written.unwritten = end.unwritten;
        self.close(end);
        self.written
    }
}
