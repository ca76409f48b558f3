//! Recording while it happens: events are coded where they arrive, and compressed and written on a thread of its own, so
//! that a slow disk does not keep the kernel's ring buffers waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    codec::Encoder,
    files::{FileError, Files, Written},
    header::{End, Note, What},
};
use crate::source::event::Event;

/// Contents of a frame, in bytes: more compresses no better.
pub(crate) const FRAME: usize = 1 << 20;

/// Bytes that may wait for the disk: some seconds of the busiest host, in which it may stall.
const WAITING: usize = 64 << 20;

/// How long events may wait to be written.
const AGE: Duration = Duration::from_secs(1);

/// What goes to the thread that writes.
pub struct Block {
    /// Contents of a frame.
    pub bytes: Vec<u8>,
    /// Records in it.
    pub records: u32,
    /// Whether one of them is a violation.
    pub violation: bool,
    /// When the last of its events happened, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
}

enum Job {
    Block(Block),
    End(End),
}

/// Takes events in and writes them.
pub struct Recorder {
    what: What,
    encoder: Encoder,
    violation: bool,
    /// When the first and the last event of the frame happened, in ns of CLOCK_MONOTONIC.
    first_ns: Option<u64>,
    time_ns: u64,
    flushed: Instant,
    /// Records of blocks for which there was no room.
    dropped: u64,
    sender: Sender<Job>,
    /// Bytes that wait.
    waiting: Arc<AtomicUsize>,
    failed: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

impl Recorder {
    /// Begins to record into `files`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(what: What, mut files: Files) -> Result<Self, FileError> {
        let (sender, receiver) = channel();
        let (failed, waiting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, taken) = (Arc::clone(&failed), Arc::clone(&waiting));
        let body = move || {
            let mut end = End::default();
            for job in receiver {
                match job {
                    Job::Block(block) => {
                        let bytes = block.bytes.len();
                        files.block(block);
                        taken.fetch_sub(bytes, Ordering::Relaxed);
                        told.store(files.has_failed(), Ordering::Relaxed);
                    }
                    Job::End(last) => end = last,
                }
            }
            files.end(end)
        };
        let thread = thread::Builder::new().name("septwatch-write".to_owned()).spawn(body);
        let thread = thread.map_err(FileError::Thread)?;
        Ok(Self {
            what,
            encoder: Encoder::default(),
            violation: false,
            first_ns: None,
            time_ns: 0,
            flushed: Instant::now(),
            dropped: 0,
            sender,
            waiting,
            failed,
            thread,
        })
    }

    /// Takes an event in.
    pub fn event(&mut self, event: &Event) {
        let time_ns = event.header().time_ns;
        // Events of one CPU can be read before earlier ones of another.
        self.time_ns = self.time_ns.max(time_ns);
        let first_ns = *self.first_ns.get_or_insert(time_ns);
        let is_wanted = match event {
            Event::Violation(_) => {
                self.violation = true;
                true
            }
            Event::Life(_) | Event::Vm(_) => self.what != What::Violations,
            Event::Call(_) | Event::Frame(_) => self.what == What::All,
        };
        if is_wanted {
            self.encoder.event(event);
        }
        if self.encoder.len() >= FRAME || time_ns.saturating_sub(first_ns) >= AGE.as_nanos() as u64 {
            self.flush();
        }
    }

    /// Takes a note in, where it belongs: after what was taken in so far.
    pub fn note(&mut self, note: &Note) {
        // A note is made of numbers and names only.
        if let Ok(json) = serde_json::to_vec(note) {
            self.encoder.note(&json);
        }
    }

    /// Hands on what has waited long enough, and what must not wait.
    pub fn tend(&mut self) {
        if self.violation || !self.encoder.is_empty() && self.flushed.elapsed() >= AGE {
            self.flush();
        }
    }

    /// Whether what is counted should be noted.
    pub fn wants_count(&self) -> bool {
        self.flushed.elapsed() >= AGE
    }

    /// Whether half of the room for what waits for the disk is taken: who can wait should.
    pub fn is_behind(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > WAITING / 2
    }

    /// Whether the disk takes nothing any more.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn flush(&mut self) {
        self.flushed = Instant::now();
        self.first_ns = None;
        if self.encoder.is_empty() {
            return;
        }
        let (bytes, records) = self.encoder.take();
        let violation = std::mem::take(&mut self.violation);
        let block = Block { bytes, records, violation, time_ns: self.time_ns };
        let (size, lost) = (block.bytes.len(), u64::from(records));
        let room = self.waiting.load(Ordering::Relaxed) + size <= WAITING;
        self.waiting.fetch_add(size, Ordering::Relaxed);
        // Without room, or without the thread, it is lost here.
        if !room || self.sender.send(Job::Block(block)).is_err() {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            self.dropped += lost;
            // In the next frame, which is where they would have been.
            let why = "the disk was too slow".to_owned();
            self.note(&Note::Unwritten { records: lost, why });
        }
    }

    /// Ends the recording, and says what came of it.
    pub fn finish(mut self, mut end: End) -> Written {
        self.flush();
        end.unwritten += self.dropped;
        // The thread is there until the sender is gone.
        let _ = self.sender.send(Job::End(end));
        drop(self.sender);
        self.thread.join().unwrap_or_default()
    }
}
