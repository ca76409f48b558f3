//! What only limits that are shorter than the real ones show in time; all else is tested from outside, in
//! `userspace/tests/http`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::*;

struct Fixed;

impl Pages for Fixed {
    fn page(&self, _: &str, _: &str) -> Option<Page> {
        Some(Page { status: 200, content_type: "text/plain", body: b"fine\n".to_vec() })
    }
}

/// All that is answered to these bytes, until the server closes.
fn said(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that closes at once may not take all of it.
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn begin_within(limits: Limits) -> Server {
    let listen = "127.0.0.1:0".parse().unwrap();
    Server::begin_within(limits, &listen, Access::default(), Arc::new(Fixed)).unwrap()
}

#[test]
fn a_connection_that_is_old_ends_with_an_answer() {
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let server = begin_within(Limits { kept: Duration::ZERO, ..LIMITS });
    let begun = Instant::now();
    let answer = said(&server, request);
    assert!(answer.ends_with("fine\n") && answer.to_lowercase().contains("connection: close"), "{answer}");
    assert!(begun.elapsed() < LIMITS.head, "{:?}", begun.elapsed());
    let young = begin_within(Limits { head: Duration::from_millis(200), ..LIMITS });
    let answer = said(&young, request);
    assert!(answer.ends_with("fine\n") && !answer.to_lowercase().contains("connection: close"), "{answer}");
}

#[test]
fn a_connection_does_not_outlast_its_whole_time() {
    let server = begin_within(Limits { whole: Duration::from_millis(300), ..LIMITS });
    let begun = Instant::now();
    let answer = said(&server, b"GET /metrics HTTP/1.1\r\nX: ");
    assert!(answer.is_empty() && begun.elapsed() < LIMITS.head, "{:?}", begun.elapsed());
    let counted = || server.clients().timeouts.load(Ordering::Relaxed) == 1;
    while !counted() {
        assert!(begun.elapsed() < LIMITS.head, "not counted");
        thread::sleep(Duration::from_millis(5));
    }
}
