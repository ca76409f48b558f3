//! Which pages there are, for whom.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::atomic::Ordering};

use septwatch::collector::http::{Access, AccessError};

use super::support::*;

const TOKEN: &str = "a-token-of-enough-bytes";

#[test]
fn only_the_paths_that_there_are_are_answered() {
    let server = begin(Access::default());
    let found = ask(&server, "GET /metrics HTTP/1.1");
    assert!(found.starts_with("HTTP/1.1 200 OK\r\n") && found.ends_with("\r\n\r\nfine\n"), "{found}");
    assert!(!found.to_lowercase().contains("server:"), "{found}");
    assert_eq!(status(&ask(&server, "GET /metrics?name=x HTTP/1.1")), Some(200), "a query changes nothing");
    assert_eq!(status(&ask(&server, "GET /metrics HTTP/1.0")), Some(200));
    assert!(ask(&server, "HEAD /metrics HTTP/1.1").ends_with("\r\n\r\n"), "no body");
    for path in
        ["/", "//metrics", "/metrics/", "/metrics/../metrics", "/%6detrics", "/metrics%00", "/METRICS"]
    {
        assert_eq!(status(&ask(&server, &format!("GET {path} HTTP/1.1"))), Some(404), "{path}");
    }
    for (request, code) in [
        ("POST /metrics HTTP/1.1", 405),
        ("DELETE /metrics HTTP/1.1", 405),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 1000000000", 413),
        ("POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked", 413),
        ("GET /panic HTTP/1.1", 500),
        ("GET /metrics HTTP/1.1", 200),
    ] {
        assert_eq!(status(&ask(&server, request)), Some(code), "{request}");
    }
}

#[test]
fn what_is_no_http_or_too_long_is_turned_down() {
    let server = begin(Access::default());
    for garbage in [&b"\x16\x03\x01\x02\x00garbage\r\n\r\n"[..], b"GET\r\n\r\n", &[0; 4096]] {
        let answer = said(connect(&server), garbage);
        assert!(answer.is_empty() || status(&answer) == Some(400), "{answer}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(64 * 1024));
    let answer = ask(&server, &long);
    assert!(answer.is_empty() || status(&answer) == Some(431), "{answer}");
    assert!(server.clients().broken.load(Ordering::Relaxed) >= 3);
    assert_eq!(status(&ask(&server, "GET /metrics HTTP/1.1")), Some(200), "others are served");
}

#[test]
fn a_token_is_asked_for_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "token", &format!("{TOKEN}\n"), 0o600);
    let server = begin(Access { token_file: Some(path.clone()), ..Access::default() });
    let with =
        |token: &str| status(&ask(&server, &format!("GET /metrics HTTP/1.1\r\nAuthorization: {token}")));
    assert!(ask(&server, "GET /metrics HTTP/1.1").to_lowercase().contains("www-authenticate: bearer"));
    assert_eq!(with(&format!("Bearer {TOKEN}")), Some(200));
    for wrong in ["Bearer", "Bearer x", TOKEN, "Basic eA==", "Bearer a-token-of-enough-bytez"] {
        assert_eq!(with(wrong), Some(401), "{wrong}");
    }
    let with_more = format!("Bearer {TOKEN}x");
    assert_eq!(with(&with_more), Some(401));
    // What is wrong is not taken.
    fs::write(&path, "short").unwrap();
    assert!(server.reload().unwrap_err().to_string().contains("metrics.token_file"));
    assert_eq!(with(&format!("Bearer {TOKEN}")), Some(200));
    fs::write(&path, format!("{TOKEN}x")).unwrap();
    server.reload().unwrap();
    assert_eq!((with(&format!("Bearer {TOKEN}")), with(&with_more)), (Some(401), Some(200)));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(server.reload().unwrap_err().to_string().contains("chmod 0600"));
}

#[test]
fn an_open_address_needs_more() {
    let check = |access: &Access, address: &str| access.check(&address.parse().unwrap());
    let some = || Some("/some/file".into());
    let tls = Access { tls_certificate: some(), tls_key: some(), ..Access::default() };
    for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:9815"] {
        let why = check(&Access::default(), address).unwrap_err().to_string();
        assert!(why.contains(address) && why.contains("metrics.tls_certificate"), "{why}");
        assert!(check(&tls, address).unwrap_err().to_string().contains("metrics.token_file"));
        assert!(check(&Access { token_file: some(), ..Access::default() }, address).is_err());
        check(&Access { token_file: some(), ..tls.clone() }, address).unwrap();
        check(&Access { client_ca: some(), ..tls.clone() }, address).unwrap();
    }
    for address in ["127.0.0.1:1", "[::1]:1", "unix:/x", "systemd"] {
        check(&Access::default(), address).unwrap();
    }
    for access in [
        Access { tls_key: None, ..tls.clone() },
        Access { tls_certificate: None, ..tls },
        Access { client_ca: some(), ..Access::default() },
    ] {
        assert!(matches!(access.read(), Err(AccessError::Needs { .. })));
    }
}
