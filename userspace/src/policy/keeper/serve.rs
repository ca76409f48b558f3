//! The keeper itself.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    time::Duration,
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock, fstat},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt::socket_peercred,
    },
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::{Kept, LOCK, LONGEST, MOST_FILES, Reply, Request, SOCKET};
use crate::policy::react::host::Host;

/// How long it stays with nothing to keep.
const IDLE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// How long a request may take to come, and its answer to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the keeper came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It had nothing to keep any more.
    Idle,
    /// Another one keeps already.
    Second,
}

/// A TD's descriptors.
#[derive(Debug)]
struct Hold {
    kept: Kept,
    /// In the order of its inodes.
    files: Vec<OwnedFd>,
}

/// Keeps descriptors, until there are none.
///
/// # Errors
/// It cannot be reached there.
pub fn serve(folder: &Path) -> io::Result<Outcome> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut lock = OpenOptions::new();
    lock.create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    let lock = lock.open(folder.join(LOCK))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(Outcome::Second),
        locked => locked?,
    }
    let socket = folder.join(SOCKET);
    // One that was killed left its socket. Nobody else makes it: this process has the lock.
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    stay();
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    let mut holds = Vec::new();
    loop {
        let idle = holds.is_empty().then_some(&IDLE);
        match poll(&mut [PollFd::new(&listener, PollFlags::IN)], idle) {
            Err(Errno::INTR) => continue,
            Ok(0) => break,
            ready => drop(ready?),
        }
        // Whoever asks has its own troubles: they end nothing here.
        if let Ok((stream, _)) = listener.accept() {
            let _ = answer(&stream, &mut holds);
        }
    }
    // Gone before the lock is: who comes now finds none and starts one.
    fs::remove_file(&socket)?;
    drop(lock);
    Ok(Outcome::Idle)
}

/// Lets nothing end this process but a release. What of it fails here is not needed for keeping: it is only likelier to be
/// ended by somebody who did not mean it.
fn stay() {
    let _ = rustix::process::setsid();
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let _ = rustix::thread::set_name(c"septwatch-hold");
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    let host = Host::default();
    // The root cgroup belongs to no service.
    if let Some(root) = host.cgroups()
        && host.own_cgroup().is_some_and(|own| own != Path::new("/"))
    {
        let own = root.join("septwatch-hold");
        let _ = fs::create_dir(&own);
        let _ = fs::write(own.join("cgroup.procs"), "0");
    }
}

/// Answers one request.
fn answer(stream: &UnixStream, holds: &mut Vec<Hold>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let replies = if is_allowed(stream)? {
        match request(stream) {
            Ok((request, files)) => act(request, files, holds),
            Err(error) => vec![Reply::Error(error.to_string())],
        }
    } else {
        vec![Reply::Error("only root may ask".to_owned())]
    };
    let mut text = Vec::new();
    for reply in &replies {
        serde_json::to_writer(&mut text, reply)?;
        text.push(b'\n');
    }
    (&mut &*stream).write_all(&text)
}

/// Root, or who runs this.
fn is_allowed(stream: &UnixStream) -> io::Result<bool> {
    let uid = socket_peercred(stream)?.uid;
    Ok(uid.is_root() || uid == rustix::process::geteuid())
}

fn request(stream: &UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    let (mut line, mut files) = (Vec::new(), Vec::new());
    let mut buffer = [0; 4096];
    while !line.ends_with(b"\n") {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got =
            recvmsg(stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        if got.bytes == 0 || got.flags.contains(ReturnFlags::CTRUNC) || line.len() > LONGEST {
            return Err(io::Error::other("not a request: a line of JSON, and its descriptors"));
        }
        line.extend(&buffer[..got.bytes]);
    }
    Ok((serde_json::from_slice(&line)?, files))
}

fn act(request: Request, files: Vec<OwnedFd>, holds: &mut Vec<Hold>) -> Vec<Reply> {
    let mut replies = match request {
        Request::Take(kept) => match take(kept, files, holds) {
            Ok(kept) => vec![Reply::Kept(kept)],
            Err(why) => return vec![Reply::Error(why)],
        },
        Request::List => holds.iter().map(|hold| Reply::Kept(hold.kept.clone())).collect(),
        Request::Release { td, ready } => {
            let goes = |hold: &mut Hold| hold.kept.td == td && (!ready || hold.kept.violation.is_none());
            // Their descriptors are closed when this is collected: what is given back is given back by then.
            holds.extract_if(.., goes).map(|hold| Reply::Kept(hold.kept)).collect()
        }
    };
    replies.push(Reply::End);
    replies
}

fn take(kept: Kept, files: Vec<OwnedFd>, holds: &mut Vec<Hold>) -> Result<Kept, String> {
    if files.len() != kept.inodes.len() {
        return Err(format!("{} inodes are named, and {} descriptors came", kept.inodes.len(), files.len()));
    }
    let inode = |file: &OwnedFd| fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
    let inodes = files.iter().map(inode).collect::<Result<Vec<_>, _>>().map_err(|errno| errno.to_string())?;
    // Before anything has failed, the TDR need not be known.
    let is_tdr = |tdr: Option<u64>| tdr.is_none() || kept.tdr.is_none() || tdr == kept.tdr;
    let is_same =
        |hold: &&mut Hold| (hold.kept.td, hold.kept.pid) == (kept.td, kept.pid) && is_tdr(hold.kept.tdr);
    let mut new = None;
    let hold = match holds.iter_mut().find(is_same) {
        Some(hold) => hold,
        None if files.is_empty() => return Err(format!("nothing is kept for TD {}", kept.td)),
        None => new.insert(Hold { kept: Kept { inodes: Vec::new(), ..kept.clone() }, files: Vec::new() }),
    };
    for (file, inode) in files.into_iter().zip(inodes) {
        if !hold.kept.inodes.contains(&inode) {
            hold.kept.inodes.push(inode);
            hold.files.push(file);
        }
    }
    hold.kept.tdr = hold.kept.tdr.or(kept.tdr);
    // The first violation is why it is held.
    if hold.kept.violation.is_none() && kept.violation.is_some() {
        (hold.kept.violation, hold.kept.frames, hold.kept.since_ns) =
            (kept.violation, kept.frames, kept.since_ns);
    }
    let told = hold.kept.clone();
    holds.extend(new);
    Ok(told)
}
