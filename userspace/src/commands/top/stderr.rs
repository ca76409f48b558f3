//! Standard error while the screen is on: what anybody writes there goes into the log, not across the screen.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::{PipeFlags, pipe_with},
    stdio::dup2_stderr,
};

use crate::locked::lock;

/// Most lines that wait to be taken; older ones are left out.
const LINES: usize = 1_000;
/// Most bytes of a line; what is longer is cut into several.
const LONGEST: usize = 4_096;

/// Where standard error led before.
static ORIGINAL: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// As long as it lives, standard error is a pipe into a queue of lines. There is one at a time.
pub struct Stderr {
    lines: Lines,
    reader: Option<JoinHandle<()>>,
    /// The reader ends when it is closed.
    stop: Option<OwnedFd>,
    /// Lines that nobody took belong to a person who sees standard error on the same terminal.
    is_terminal: bool,
}

/// Lines that were written to standard error.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<String>,
    left_out: u64,
}

impl Lines {
    /// Takes what was written since.
    pub fn take(&self) -> Vec<String> {
        let mut queue = lock(&self.0);
        let left_out = std::mem::take(&mut queue.left_out);
        let left_out = (left_out != 0).then(|| format!("{left_out} lines were left out here"));
        left_out.into_iter().chain(queue.lines.drain(..)).collect()
    }

    fn push(&self, line: &[u8]) {
        let mut queue = lock(&self.0);
        if queue.lines.len() >= LINES {
            queue.lines.pop_front();
            queue.left_out += 1;
        }
        // It may be anything, and is shown on a terminal.
        queue.lines.push_back(String::from_utf8_lossy(line).replace(char::is_control, "?"));
    }
}

impl Stderr {
    /// Leads standard error into the queue. If it was no terminal, what is written arrives where it led, too.
    ///
    /// # Errors
    /// No pipe, no thread.
    pub fn divert() -> io::Result<Self> {
        let original = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?;
        let is_terminal = original.is_terminal();
        let copy = if is_terminal { None } else { Some(File::from(original.try_clone()?)) };
        let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&from, true)?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let lines = Lines::default();
        let reader = Reader { from: from.into(), stopped, copy, lines: lines.clone(), rest: Vec::new() };
        let reader = thread::Builder::new().name("stderr".to_owned()).spawn(move || reader.run())?;
        let this = Self { lines, reader: Some(reader), stop: Some(stop), is_terminal };
        *lock(&ORIGINAL) = Some(original);
        dup2_stderr(&to)?;
        Ok(this)
    }

    /// The queue, for whoever shows it.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }
}

/// Leads standard error back to where it led before; nothing, where it leads there already.
pub fn restore() {
    // In a panic, a lock that somebody else holds is not waited for.
    let original = match ORIGINAL.try_lock() {
        Ok(mut original) => original.take(),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
        Err(std::sync::TryLockError::WouldBlock) => None,
    };
    if let Some(original) = original {
        // There is nowhere to complain to.
        let _ = dup2_stderr(original);
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        restore();
        drop(self.stop.take());
        let _ = self.reader.take().map(JoinHandle::join);
        if self.is_terminal {
            for line in self.lines.take() {
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }
}

/// Reads the pipe.
struct Reader {
    from: File,
    stopped: OwnedFd,
    copy: Option<File>,
    lines: Lines,
    /// Of a line whose end has not come yet.
    rest: Vec<u8>,
}

impl Reader {
    fn run(mut self) {
        loop {
            let last = match self.wait() {
                Ok(last) => last,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => true,
            };
            let open = self.drain();
            if last || !open {
                break;
            }
        }
        if !self.rest.is_empty() {
            self.lines.push(&self.rest);
        }
    }

    /// Waits until there is something to read; whether it is the last time.
    fn wait(&self) -> rustix::io::Result<bool> {
        let mut ready = [
            PollFd::from_borrowed_fd(self.from.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.stopped.as_fd(), PollFlags::IN),
        ];
        poll(&mut ready, None)?;
        Ok(!ready[1].revents().is_empty())
    }

    /// Reads what is there; whether more may come.
    fn drain(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.from.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => self.received(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        if let Some(copy) = &mut self.copy {
            // Whoever does not read it any more has the screen still.
            let _ = copy.write_all(bytes);
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part.strip_suffix(b"\n").unwrap_or(part));
            while self.rest.len() > LONGEST {
                self.lines.push(&self.rest[..LONGEST]);
                self.rest.drain(..LONGEST);
            }
            if part.ends_with(b"\n") {
                self.lines.push(&self.rest);
                self.rest.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use super::*;

    fn reader(lines: &Lines, copy: Option<File>) -> (Reader, OwnedFd, OwnedFd) {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&from, true).unwrap();
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (Reader { from: from.into(), stopped, copy, lines: lines.clone(), rest: Vec::new() }, to, stop)
    }

    #[test]
    fn lines_are_put_together() {
        let lines = Lines::default();
        let mut copy = tempfile::tempfile().unwrap();
        let (reader, to, stop) = reader(&lines, Some(copy.try_clone().unwrap()));
        let thread = thread::spawn(move || reader.run());
        let mut to = File::from(to);
        for part in [b"one\ntw" as &[u8], b"o\n\n", b"\xff\n", b"without end"] {
            to.write_all(part).unwrap();
        }
        // Somebody else may hold the pipe open: it ends all the same.
        drop(stop);
        thread.join().unwrap();
        assert_eq!(lines.take(), ["one", "two", "", "\u{fffd}", "without end"]);
        assert_eq!(lines.take(), [""; 0]);
        let mut copied = Vec::new();
        io::Seek::rewind(&mut copy).unwrap();
        copy.read_to_end(&mut copied).unwrap();
        assert_eq!(copied, b"one\ntwo\n\n\xff\nwithout end");
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let lines = Lines::default();
        let (mut reader, _to, _stop) = reader(&lines, None);
        for number in 0..LINES + 5 {
            reader.received(format!("{number}\n").as_bytes());
        }
        let taken = lines.take();
        assert_eq!(taken.len(), LINES + 1);
        assert_eq!(taken[..2], ["5 lines were left out here", "5"]);
        reader.received(&[b'x'; 3 * LONGEST + 1]);
        reader.received(b"\x1b[2J\n");
        let lengths: Vec<_> = lines.take().iter().map(String::len).collect();
        assert_eq!(lengths, [LONGEST, LONGEST, LONGEST, 5]);
    }
}
