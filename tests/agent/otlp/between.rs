//! What may be between an agent and its collector: nothing, or something that hangs, breaks off, is not there, or is
//! something else.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

/// What it does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Hands on what is sent, both ways.
    Passes,
    /// Takes connections and what is sent, and never says anything.
    Hangs,
    /// Takes connections and breaks them off.
    Resets,
    /// Nobody listens.
    Refuses,
    /// Says what is neither HTTP nor gRPC.
    Babbles,
}

/// It, at work as long as the test.
pub struct Between {
    mode: Arc<AtomicU8>,
    pub port: u16,
}

/// How often it is looked whether the mode is another.
const LOOK: Duration = Duration::from_millis(20);

impl Between {
    /// Begins to pass on to a port.
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(Mode::Passes as u8));
        thread::spawn({
            let mode = Arc::clone(&mode);
            move || listen(listener, port, to, &mode)
        });
        Self { mode, port }
    }

    /// From now on it is so; connections of before end.
    pub fn is(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Release);
    }
}

fn is(mode: &AtomicU8, so: Mode) -> bool {
    mode.load(Ordering::Acquire) == so as u8
}

fn listen(listener: TcpListener, port: u16, to: u16, mode: &Arc<AtomicU8>) {
    listener.set_nonblocking(true).unwrap();
    let mut listener = Some(listener);
    loop {
        if is(mode, Mode::Refuses) {
            listener = None;
        } else if listener.is_none() {
            let again = TcpListener::bind(("127.0.0.1", port)).unwrap();
            again.set_nonblocking(true).unwrap();
            listener = Some(again);
        }
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((stream, _))) => {
                stream.set_nonblocking(false).unwrap();
                let mode = Arc::clone(mode);
                thread::spawn(move || serve(stream, to, &mode));
            }
            _ => thread::sleep(LOOK),
        }
    }
}

fn serve(mut stream: TcpStream, to: u16, mode: &Arc<AtomicU8>) {
    if is(mode, Mode::Passes) {
        let collector = TcpStream::connect(("127.0.0.1", to)).unwrap();
        let (back, forth) = (collector.try_clone().unwrap(), stream.try_clone().unwrap());
        let of_back = Arc::clone(mode);
        thread::spawn(move || pass(back, forth, &of_back));
        return pass(stream, collector, mode);
    }
    if is(mode, Mode::Resets) {
        // Closed with what was sent unread and no time for it, it is a reset.
        return rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO)).unwrap();
    }
    if is(mode, Mode::Babbles) {
        // Whoever is gone does not hear it.
        let _ = stream.write_all(b"\x80\x46\x01\x03 220 mail.example ESMTP, good day\r\n\xff\xfe\x00");
        thread::sleep(LOOK);
        return;
    }
    while is(mode, Mode::Hangs) {
        thread::sleep(LOOK);
    }
}

/// Passes bytes on, until either side ends or nothing is passed on any more.
fn pass(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8) {
    from.set_read_timeout(Some(LOOK)).unwrap();
    let mut bytes = [0; 1 << 16];
    while is(mode, Mode::Passes) {
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) if to.write_all(&bytes[..length]).is_err() => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    for stream in [from, to] {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}
