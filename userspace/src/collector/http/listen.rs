//! Where a server listens.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};
use serde::{Serialize, Serializer};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port; port 0: one that is free.
    Tcp(SocketAddr),
    /// A Unix socket, for its owner and group.
    Unix(PathBuf),
    /// The sockets that systemd hands over. sd_listen_fds(3)
    Systemd,
}

const UNIX: &str = "unix:";
const SYSTEMD: &str = "systemd";
/// Connections that wait to be accepted, as std has it.
const BACKLOG: i32 = 128;

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == SYSTEMD {
            return Ok(Self::Systemd);
        }
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = Path::new(path);
            return match path.is_absolute() {
                true => Ok(Self::Unix(path.to_owned())),
                false => {
                    Err("a Unix socket needs its whole path, as in unix:/run/septwatch/metrics.sock"
                        .to_owned())
                }
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            "not an address with a port, as in 127.0.0.1:9815 or [::1]:9815, nor unix:PATH, systemd or none".to_owned()
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Systemd => f.write_str(SYSTEMD),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listening {
    /// On an address.
    Tcp(TcpListener, SocketAddr),
    /// On a path.
    Unix(UnixListener, Option<PathBuf>),
}

impl Listening {
    /// Whether others than processes of this host can connect.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Tcp(_, address) if !address.ip().is_loopback())
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => address.fmt(f),
            Self::Unix(_, Some(path)) => write!(f, "{UNIX}{}", path.display()),
            Self::Unix(_, None) => f.write_str("a Unix socket of systemd's"),
        }
    }
}

impl Listen {
    /// Begins to listen.
    ///
    /// # Errors
    /// It cannot, or systemd hands nothing over.
    pub fn begin(&self) -> io::Result<Vec<Listening>> {
        let listening = match self {
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                let address = listener.local_addr()?;
                vec![Listening::Tcp(listener, address)]
            }
            Self::Unix(path) => vec![Listening::Unix(unix(path)?, Some(path.clone()))],
            Self::Systemd => {
                let handed = sd_notify::listen_fds()?.map(|number| {
                    // SAFETY: the environment says that this descriptor was handed over to this process, and nobody else
                    // here takes it.
                    unsafe { OwnedFd::from_raw_fd(number) }
                });
                let sockets = handed.map(handed_over).collect::<io::Result<Vec<_>>>()?;
                if sockets.is_empty() {
                    return Err(io::Error::other(
                        "systemd handed no socket over: is septwatch-agent.socket enabled?",
                    ));
                }
                sockets
            }
        };
        for socket in &listening {
            match socket {
                Listening::Tcp(listener, _) => listener.set_nonblocking(true)?,
                Listening::Unix(listener, _) => listener.set_nonblocking(true)?,
            }
        }
        Ok(listening)
    }
}

/// Listens at a path, in place of a socket that nobody listens at any more.
fn unix(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket"));
        }
        Ok(_) => {
            is_dead(&address)?;
            fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = stream_socket()?;
    net::bind(&socket, &address)?;
    // By a descriptor that follows no link: whatever else may have been put there keeps its mode. Nobody can connect before
    // this is done, whatever the umask left, for nobody listens.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let bound = rustix::fs::open(path, flags, Mode::empty())?;
    if !FileType::from_raw_mode(rustix::fs::fstat(&bound)?.st_mode).is_socket() {
        return Err(io::Error::other("somebody put something else in its place"));
    }
    let itself = format!("/proc/self/fd/{}", bound.as_raw_fd());
    fs::set_permissions(itself, fs::Permissions::from_mode(0o660))?;
    net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn stream_socket() -> io::Result<OwnedFd> {
    // It must not wait: whoever listens may have stopped accepting.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// That nobody has the socket at an address any more. connect(2) tells just that by ECONNREFUSED.
fn is_dead(address: &SocketAddrUnix) -> io::Result<()> {
    let in_use = |what: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    match net::connect(stream_socket()?, address) {
        Err(Errno::CONNREFUSED) => Ok(()),
        Ok(()) | Err(Errno::AGAIN) => in_use("somebody listens there already"),
        Err(Errno::PROTOTYPE) => in_use("a socket of another kind is in use there"),
        Err(error) => Err(error.into()),
    }
}

fn handed_over(socket: OwnedFd) -> io::Result<Listening> {
    let wrong = |what: &str| io::Error::other(format!("what systemd handed over is {what}"));
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    let listens = sockopt::socket_acceptconn(socket.as_fd()).map_err(|_| wrong("no socket"))?;
    if sockopt::socket_type(socket.as_fd())? != SocketType::STREAM || !listens {
        return Err(wrong("not a stream socket that listens: ListenStream="));
    }
    Ok(match sockopt::socket_domain(socket.as_fd())? {
        AddressFamily::UNIX => {
            let listener = UnixListener::from(socket);
            let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
            Listening::Unix(listener, path)
        }
        AddressFamily::INET | AddressFamily::INET6 => {
            let listener = TcpListener::from(socket);
            let address = listener.local_addr()?;
            Listening::Tcp(listener, address)
        }
        _ => return Err(wrong("neither a TCP nor a Unix socket")),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::{
        net::UdpSocket,
        os::unix::net::{UnixDatagram, UnixStream},
    };

    use super::*;

    #[test]
    fn where_to_listen_is_read_as_it_is_written() {
        for text in ["127.0.0.1:9815", "[::1]:0", "unix:/run/septwatch/metrics.sock", "systemd"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["", "9815", "localhost:9815", "127.0.0.1", "unix:relative", "127.0.0.1:65536"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_dead_socket_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listen = Listen::Unix(path.clone());
        let first = listen.begin().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(listen.begin().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(listen.begin().unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(listen.begin().is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn only_sockets_that_listen_are_taken_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(handed_over(listener.into()).unwrap().to_string(), address.to_string());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(handed_over(listener.into()).unwrap().to_string(), format!("unix:{}", path.display()));
        let datagrams = UnixDatagram::bind(folder.path().join("datagrams")).unwrap();
        assert!(handed_over(datagrams.into()).is_err(), "datagrams");
        assert!(handed_over(UdpSocket::bind("127.0.0.1:0").unwrap().into()).is_err(), "UDP");
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(handed_over(one.into()).is_err(), "it does not listen");
        assert!(handed_over(fs::File::open("/dev/null").unwrap().into()).is_err(), "it is no socket");
    }
}
