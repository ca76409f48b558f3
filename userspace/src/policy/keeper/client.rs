//! The agent's side of the keeper.

use std::{
    io::{self, BufRead as _, BufReader, IoSlice, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    cmsg_space,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use super::{COMMAND, Kept, MOST_FILES, Reply, Request, SOCKET};
use crate::policy::react::hold::Pinned;

/// How long an answer may take.
const ANSWERS: Duration = Duration::from_secs(5);
/// How long a keeper may take to begin.
const BEGINS: Duration = Duration::from_secs(5);

/// The keeper of a host, running or not.
#[derive(Clone, Debug)]
pub struct Keeper {
    folder: PathBuf,
}

impl Keeper {
    /// The keeper whose socket is in this folder.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Has descriptors kept, and starts the keeper if there is none. Without descriptors: says why what is kept for the TD
    /// already is held. Returns all that is kept for it.
    ///
    /// # Errors
    /// No keeper takes them.
    pub fn take(&self, mut kept: Kept, pinned: &[Pinned]) -> io::Result<Kept> {
        let mut taken = None;
        let all: Vec<_> = pinned.iter().map(|pinned| (pinned.inode, pinned.file.as_fd())).collect();
        // At least one request, if only for its words.
        let parts: Vec<&[_]> = if all.is_empty() { vec![&[]] } else { all.chunks(MOST_FILES).collect() };
        for part in parts {
            kept.inodes = part.iter().map(|(inode, _)| *inode).collect();
            let files: Vec<_> = part.iter().map(|(_, file)| *file).collect();
            taken = self.ask_or_start(&Request::Take(kept.clone()), &files)?.pop();
        }
        taken.ok_or_else(|| io::Error::other("it answered nothing"))
    }

    /// What is kept; nothing where no keeper runs.
    ///
    /// # Errors
    /// It does not answer.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        self.ask_if_any(&Request::List)
    }

    /// Lets go of what is kept for a TD, with `ready` only if nothing has failed; returns what that was.
    ///
    /// # Errors
    /// It does not answer.
    pub fn release(&self, td: u32, ready: bool) -> io::Result<Vec<Kept>> {
        self.ask_if_any(&Request::Release { td, ready })
    }

    fn ask_if_any(&self, request: &Request) -> io::Result<Vec<Kept>> {
        match self.ask(request, &[]) {
            Err(error) if is_nobody(&error) => Ok(Vec::new()),
            answer => answer,
        }
    }

    fn ask_or_start(&self, request: &Request, files: &[BorrowedFd<'_>]) -> io::Result<Vec<Kept>> {
        let first = Instant::now();
        let mut next_start = first;
        loop {
            match self.ask(request, files) {
                // One that ends because it has nothing may have had the request already: asking twice is harmless.
                Err(error) if is_nobody(&error) && first.elapsed() < BEGINS => {
                    if Instant::now() >= next_start {
                        self.start()?;
                        // It may find another that is just ending, and end as well.
                        next_start = Instant::now() + Duration::from_millis(500);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                answer => return answer,
            }
        }
    }

    fn start(&self) -> io::Result<()> {
        // The file that runs, even if another is at its path by now.
        let mut command = Command::new("/proc/self/exe");
        // systemd passes over processes named like this when it ends the rest before a shutdown: it would wait for this one.
        command
            .arg0("@septwatch-hold")
            .arg(COMMAND)
            .arg("--run")
            .arg(&self.folder)
            .env_clear()
            .current_dir("/");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // It may end long before this process does.
        thread::Builder::new().name("septwatch-reap".to_owned()).spawn(move || child.wait())?;
        Ok(())
    }

    fn ask(&self, request: &Request, files: &[BorrowedFd<'_>]) -> io::Result<Vec<Kept>> {
        let mut stream = UnixStream::connect(self.folder.join(SOCKET))?;
        stream.set_read_timeout(Some(ANSWERS))?;
        stream.set_write_timeout(Some(ANSWERS))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let mut sent = 0;
        if !files.is_empty() {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FILES))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(io::Error::other("too many descriptors for a message"));
            }
            sent = sendmsg(&stream, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)?;
        }
        stream.write_all(&line[sent..])?;
        let mut kept = Vec::new();
        for line in BufReader::new(stream).lines() {
            match serde_json::from_str(&line?)? {
                Reply::Kept(one) => kept.push(one),
                Reply::End => return Ok(kept),
                Reply::Error(why) => return Err(io::Error::other(why)),
            }
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

/// Whether an error is that no keeper runs, or that it has just ended.
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe)
}
