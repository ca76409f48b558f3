//! Unix sockets, and what may be in their place.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _, symlink},
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    sync::{Arc, mpsc::channel},
    thread,
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use septwatch::collector::http::{Access, HttpError, Listen, Server};

use super::support::*;

fn begin_at(path: &Path) -> Result<Server, HttpError> {
    Server::begin(&Listen::Unix(path.to_owned()), Access::default(), Arc::new(Fixed))
}

#[test]
fn a_socket_that_nobody_listens_at_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    let server = begin_at(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(status(&said(UnixStream::connect(&path).unwrap(), SCRAPE)), Some(200));
    drop(server);
    begin_at(&path).unwrap();
}

#[test]
fn a_socket_of_another_kind_that_is_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let theirs = UnixDatagram::bind(&path).unwrap();
    let why = begin_at(&path).err().unwrap().to_string();
    assert!(why.contains("in use"), "{why}");
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    UnixDatagram::unbound().unwrap().send_to(b"still there", &path).unwrap();
    assert_eq!(theirs.recv(&mut [0; 32]).unwrap(), 11);
}

#[test]
fn whoever_listens_and_does_not_accept_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let address = SocketAddrUnix::new(&path).unwrap();
    let socket =
        || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    let theirs = socket();
    bind(&theirs, &address).unwrap();
    listen(&theirs, 0).unwrap();
    // Until its queue is full.
    let mut waiting = Vec::new();
    loop {
        let client = socket();
        if connect(&client, &address).is_err() {
            break;
        }
        waiting.push(client);
    }
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(begin_at(&path).err().map(|error| error.to_string())));
    let why = receiver.recv_timeout(LONG).unwrap_or_else(|_| panic!("it hangs")).unwrap();
    assert!(why.contains("listens there already"), "{why}");
}

#[test]
fn a_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, precious) = (folder.path().join("socket"), folder.path().join("precious"));
    fs::write(&precious, "precious").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&precious, &path).unwrap();
    assert!(begin_at(&path).err().unwrap().to_string().contains("no socket"));
    assert_eq!(fs::metadata(&precious).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_unix_socket_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = begin_at(&path).unwrap();
    assert_eq!(status(&said(UnixStream::connect(&path).unwrap(), SCRAPE)), Some(200));
    drop(server);
    assert!(UnixStream::connect(&path).is_err(), "it has ended");
}
