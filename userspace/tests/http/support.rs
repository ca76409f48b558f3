//! A server with a few pages, and a client that may say anything.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use septwatch::collector::http::{Access, Clients, Page, Pages, Server};

/// A well-behaved request after which the connection ends.
pub const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// The same, and the connection is kept.
pub const KEPT: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
/// As long as a client may take over something, and a little for a busy machine.
pub const LONG: Duration = Duration::from_secs(8);

/// `/metrics` is short, `/large` does not fit into what sockets hold.
pub struct Fixed;

/// Size of `/large` in bytes.
pub const LARGE: usize = 32 << 20;

impl Pages for Fixed {
    fn page(&self, path: &str, _: &str) -> Option<Page> {
        let page = |body| Some(Page { status: 200, content_type: "text/plain", body });
        match path {
            "/metrics" => page(b"fine\n".to_vec()),
            "/panic" => panic!("a page of the test's"),
            "/large" => page(vec![b'x'; LARGE]),
            _ => None,
        }
    }
}

pub fn begin(access: Access) -> Server {
    Server::begin(&"127.0.0.1:0".parse().unwrap(), access, Arc::new(Fixed)).unwrap()
}

pub fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// All that is answered until the server closes.
pub fn rest(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    // A connection that is reset has ended too.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// All that is answered to these bytes until the server closes.
pub fn said(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    // A server that closes at once does not take all of it.
    let _ = stream.write_all(bytes);
    rest(&mut stream)
}

/// The same for a request line, with headers or without.
pub fn ask(server: &Server, request: &str) -> String {
    said(connect(server), format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Writes a file, and returns its path.
pub fn file(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// The status of an answer; none: there is no answer.
pub fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

/// The status that a well-behaved request gets, and after how long: the best of a few, for the machine has other things
/// to do.
pub fn scraped(server: &Server) -> (Option<u16>, Duration) {
    let once = |_| {
        let begun = Instant::now();
        let answer = status(&said(connect(server), SCRAPE));
        (begun.elapsed(), answer)
    };
    let (took, answer) = (0..5).map(once).min().unwrap();
    (answer, took)
}

/// Waits until a figure is at least so large.
pub fn until(server: &Server, what: &str, figure: fn(&Clients) -> &AtomicU64, least: u64) {
    let (clients, begun) = (server.clients(), Instant::now());
    while figure(&clients).load(Ordering::Relaxed) < least {
        assert!(begun.elapsed() < LONG, "{what}: {} of {least}", figure(&clients).load(Ordering::Relaxed));
        thread::sleep(Duration::from_millis(5));
    }
}
