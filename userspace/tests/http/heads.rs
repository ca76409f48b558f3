//! Requests that are not what they seem.

use std::sync::atomic::Ordering::Relaxed;

use septwatch::collector::http::Access;

use super::support::*;

/// The status of an answer to a request line and headers.
fn asked(head: &str) -> Option<u16> {
    status(&said(
        connect(&begin(Access::default())),
        format!("{head}\r\nConnection: close\r\n\r\n").as_bytes(),
    ))
}

#[test]
fn a_path_is_compared_as_it_is_however_it_is_wrapped() {
    for (head, code) in [
        ("GET http://elsewhere/metrics HTTP/1.1\r\nHost: elsewhere", 200),
        ("GET http://elsewhere/metrics?x=/healthz HTTP/1.1\r\nHost: x", 200),
        ("GET http://elsewhere HTTP/1.1\r\nHost: x", 404),
        ("GET /metrics?../../x HTTP/1.1\r\nHost: x", 200),
        ("GET /x?/metrics HTTP/1.1\r\nHost: x", 404),
        ("GET /metrics/../metrics HTTP/1.1\r\nHost: x", 404),
        ("GET /%2e/metrics HTTP/1.1\r\nHost: x", 404),
        ("GET //metrics HTTP/1.1\r\nHost: x", 404),
        ("GET /metrics; HTTP/1.1\r\nHost: x", 404),
        ("GET * HTTP/1.1\r\nHost: x", 404),
        ("OPTIONS * HTTP/1.1\r\nHost: x", 405),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x", 405),
        ("TRACE /metrics HTTP/1.1\r\nHost: x", 405),
        ("get /metrics HTTP/1.1\r\nHost: x", 405),
        ("GET /metrics HTTP/1.0", 200),
        ("GET /metrics HTTP/2.0\r\nHost: x", 400),
        ("GET /metrics\\..\\x HTTP/1.1\r\nHost: x", 404),
    ] {
        assert_eq!(asked(head), Some(code), "{head:?}");
    }
}

#[test]
fn heads_are_bounded_in_length_and_number() {
    assert_eq!(asked(&format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(12 << 10))), Some(200));
    assert_eq!(asked(&format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(17 << 10))), Some(431));
    assert_eq!(asked(&format!("GET /metrics HTTP/1.1{}", "\r\nX: x".repeat(1000))), Some(431));
    assert!(matches!(asked(&format!("GET /{} HTTP/1.1", "x".repeat(17 << 10))), Some(414 | 431)));
}

#[test]
fn a_body_is_neither_read_nor_taken_for_a_request() {
    let inner = String::from_utf8_lossy(KEPT);
    for (head, code) in [
        (format!("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()), 413),
        (
            format!(
                "GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
                inner.len()
            ),
            413,
        ),
        (
            format!(
                "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{inner}"
            ),
            400,
        ),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_owned(), 400),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n".to_owned(), 400),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n".to_owned(), 400),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n folded: x\r\n\r\n".to_owned(), 400),
        // Who asks first whether it may send a body is not asked to.
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
                .to_owned(),
            413,
        ),
    ] {
        let server = begin(Access::default());
        let answer = said(connect(&server), head.as_bytes());
        assert_eq!(status(&answer), Some(code), "{head:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{head:?}: {answer}");
    }
}

#[test]
fn who_sends_a_large_body_is_told_why_it_is_closed() {
    let server = begin(Access::default());
    let mut request =
        format!("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n").into_bytes();
    request.resize(request.len() + (64 << 10), b'x');
    assert_eq!(status(&said(connect(&server), &request)), Some(413));
}

#[test]
fn the_scheme_of_a_token_is_read_in_any_case_and_the_token_is_not() {
    const TOKEN: &str = "A-token-of-enough-bytes";
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "token", &format!("{TOKEN}\n"), 0o600);
    let server = begin(Access { token_file: Some(path), ..Access::default() });
    let with = |page: &str, shown: &str| {
        let head =
            format!("GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {shown}\r\n\r\n");
        status(&said(connect(&server), head.as_bytes()))
    };
    for (page, shown, code) in [
        ("/metrics", format!("Bearer {TOKEN}"), 200),
        ("/metrics", format!("bearer {TOKEN}"), 200),
        ("/metrics", format!("Bearer {}", TOKEN.to_lowercase()), 401),
        ("/metrics", format!("Bearer {TOKEN}, Bearer {TOKEN}"), 401),
        ("/metrics", "Bearer ".to_owned(), 401),
        ("/metrics", "B\u{e9}arer".to_owned(), 401),
        // Nobody learns which pages there are.
        ("/nowhere", "Bearer x".to_owned(), 401),
        ("/nowhere", format!("Bearer {TOKEN}"), 404),
    ] {
        assert_eq!(with(page, &shown), Some(code), "{page} {shown}");
    }
    let clients = server.clients();
    let answers = clients.answers.each_ref().map(|class| class.load(Relaxed));
    assert_eq!((answers, clients.refused.load(Relaxed)), ([2, 0, 6, 0], 5));
}
