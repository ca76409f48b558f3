#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::CertificateDer,
    pki_types::PrivateKeyDer, pki_types::pem::PemObject as _,
};

use super::*;

const TOKEN: &str = "a-token-of-enough-bytes";

struct Fixed;

impl Pages for Fixed {
    fn page(&self, path: &str, _: &str) -> Option<Page> {
        match path {
            "/metrics" => Some(Page { status: 200, content_type: "text/plain", body: b"fine\n".to_vec() }),
            "/panic" => panic!("a page of the test's"),
            _ => None,
        }
    }
}

fn begin(access: Access) -> Server {
    Server::begin(&"127.0.0.1:0".parse().unwrap(), access, Arc::new(Fixed)).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// All that is answered to these bytes, until the server closes; what is sent ends the connection.
fn said(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    // A server that closes at once may not take all of it.
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn asked(server: &Server, request: &str) -> String {
    said(connect(server), format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
}

fn status(text: &str) -> u16 {
    text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {text:?}"))
}

fn file(folder: &Path, name: &str, text: &str, mode: u32) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn only_the_paths_that_there_are_are_answered() {
    let server = begin(Access::default());
    let found = asked(&server, "GET /metrics HTTP/1.1");
    assert!(found.starts_with("HTTP/1.1 200 OK\r\n") && found.ends_with("\r\n\r\nfine\n"), "{found}");
    assert!(!found.to_lowercase().contains("server:"), "{found}");
    assert_eq!(status(&asked(&server, "GET /metrics?name=x HTTP/1.1")), 200, "a query changes nothing");
    assert_eq!(status(&asked(&server, "GET /metrics HTTP/1.0")), 200);
    assert!(asked(&server, "HEAD /metrics HTTP/1.1").ends_with("\r\n\r\n"), "no body");
    for path in
        ["/", "//metrics", "/metrics/", "/metrics/../metrics", "/%6detrics", "/metrics%00", "/METRICS"]
    {
        assert_eq!(status(&asked(&server, &format!("GET {path} HTTP/1.1"))), 404, "{path}");
    }
    for (request, code) in [
        ("POST /metrics HTTP/1.1", 405),
        ("DELETE /metrics HTTP/1.1", 405),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 1000000000", 413),
        ("POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked", 413),
        ("GET /panic HTTP/1.1", 500),
        ("GET /metrics HTTP/1.1", 200),
    ] {
        assert_eq!(status(&asked(&server, request)), code, "{request}");
    }
}

#[test]
fn what_is_no_http_or_too_long_is_turned_down() {
    let server = begin(Access::default());
    for garbage in [&b"\x16\x03\x01\x02\x00garbage\r\n\r\n"[..], b"GET\r\n\r\n", &[0; 4096]] {
        let answer = said(connect(&server), garbage);
        assert!(answer.is_empty() || status(&answer) == 400, "{answer}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(64 * 1024));
    let answer = asked(&server, &long);
    assert!(answer.is_empty() || status(&answer) == 431, "{answer}");
    assert!(server.clients().broken.load(Ordering::Relaxed) >= 3);
    assert_eq!(status(&asked(&server, "GET /metrics HTTP/1.1")), 200, "others are served");
}

#[test]
fn clients_that_dawdle_hold_up_nobody_and_are_cut_off() {
    let server = begin(Access::default());
    let mut slow: Vec<_> = (0..LIMITS.connections - 2)
        .map(|_| {
            let mut stream = connect(&server);
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    // The best of a few: the machine has other things to do.
    let took = (0..5).map(|_| {
        let begun = Instant::now();
        assert_eq!(status(&asked(&server, "GET /metrics HTTP/1.1")), 200);
        begun.elapsed()
    });
    assert!(took.min().unwrap() < Duration::from_millis(50));
    // When all places are taken, others are turned away at once.
    slow.extend((0..10).map(|_| connect(&server)));
    let begun = Instant::now();
    while server.clients().turned_away.load(Ordering::Relaxed) < 5 {
        assert!(begun.elapsed() < Duration::from_secs(4), "nobody was turned away");
        thread::sleep(Duration::from_millis(5));
    }
    let mut cut = slow.swap_remove(0);
    let mut rest = Vec::new();
    let begun = Instant::now();
    let _ = cut.read_to_end(&mut rest);
    assert!(begun.elapsed() < LIMITS.head + Duration::from_secs(5), "{:?}", begun.elapsed());
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
    let answer = said(connect(&server), request);
    assert!(answer.ends_with("fine\n") && answer.to_lowercase().contains("connection: close"), "{answer}");
    assert!(begun.elapsed() < LIMITS.head, "{:?}", begun.elapsed());
    let young = begin_within(Limits { head: Duration::from_millis(200), ..LIMITS });
    let answer = said(connect(&young), request);
    assert!(answer.ends_with("fine\n") && !answer.to_lowercase().contains("connection: close"), "{answer}");
}

#[test]
fn a_connection_does_not_outlast_its_whole_time() {
    let server = begin_within(Limits { whole: Duration::from_millis(300), ..LIMITS });
    let begun = Instant::now();
    let answer = said(connect(&server), b"GET /metrics HTTP/1.1\r\nX: ");
    assert!(answer.is_empty() && begun.elapsed() < LIMITS.head, "{:?}", begun.elapsed());
    let counted = || server.clients().timeouts.load(Ordering::Relaxed) == 1;
    while !counted() {
        assert!(begun.elapsed() < LIMITS.head, "not counted");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_token_is_asked_for_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "token", &format!("{TOKEN}\n"), 0o600);
    let server = begin(Access { token_file: Some(path.clone()), ..Access::default() });
    let with =
        |token: &str| status(&asked(&server, &format!("GET /metrics HTTP/1.1\r\nAuthorization: {token}")));
    assert!(asked(&server, "GET /metrics HTTP/1.1").to_lowercase().contains("www-authenticate: bearer"));
    assert_eq!(with(&format!("Bearer {TOKEN}")), 200);
    for wrong in ["Bearer", "Bearer x", TOKEN, "Basic eA==", "Bearer a-token-of-enough-bytez"] {
        assert_eq!(with(wrong), 401, "{wrong}");
    }
    let with_more = format!("Bearer {TOKEN}x");
    assert_eq!(with(&with_more), 401);
    // What is wrong is not taken.
    fs::write(&path, "short").unwrap();
    assert!(server.reload().unwrap_err().to_string().contains("metrics.token_file"));
    assert_eq!(with(&format!("Bearer {TOKEN}")), 200);
    fs::write(&path, format!("{TOKEN}x")).unwrap();
    server.reload().unwrap();
    assert_eq!((with(&format!("Bearer {TOKEN}")), with(&with_more)), (401, 200));
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

#[test]
fn a_unix_socket_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listen = Listen::Unix(path.clone());
    let server = Server::begin(&listen, Access::default(), Arc::new(Fixed)).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&said(UnixStream::connect(&path).unwrap(), request)), 200);
    drop(server);
    assert!(UnixStream::connect(&path).is_err(), "it has ended");
}

/// A client that trusts the authority of the test, with or without a certificate of its own.
fn tls(server: &Server, folder: &Path, own: Option<(&Path, &Path)>) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
    };
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, connect(server));
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(error) if text.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}

#[test]
fn tls_is_spoken_and_clients_show_their_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    certificates::write(folder.path());
    let access = Access {
        tls_certificate: Some(at("server.pem")),
        tls_key: Some(at("server.key")),
        ..Access::default()
    };
    let server = begin(access.clone());
    assert_eq!(status(&tls(&server, folder.path(), None).unwrap()), 200);
    let plain = asked(&server, "GET /metrics HTTP/1.1");
    assert!(!plain.contains("200 OK"), "{plain}");
    let server = begin(Access { client_ca: Some(at("ca.pem")), ..access.clone() });
    assert!(tls(&server, folder.path(), None).is_err(), "no certificate");
    let (certificate, key) = (at("client.pem"), at("client.key"));
    assert_eq!(status(&tls(&server, folder.path(), Some((&certificate, &key))).unwrap()), 200);
    let (certificate, key) = (at("stranger.pem"), at("stranger.key"));
    assert!(tls(&server, folder.path(), Some((&certificate, &key))).is_err(), "of another authority");
    fs::set_permissions(at("server.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(access.read().unwrap_err().to_string().contains("chmod 0600"));
}

mod certificates {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    /// An authority with a server and a client, and a client of another authority.
    pub fn write(folder: &Path) {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        for (authority, members) in [("ca", &["server", "client"][..]), ("other", &["stranger"])] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            write(&format!("{authority}.pem"), &params.self_signed(&key).unwrap().pem());
            let issuer = Issuer::new(params, key);
            for member in members {
                let key = KeyPair::generate().unwrap();
                let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
                write(&format!("{member}.pem"), &params.signed_by(&key, &issuer).unwrap().pem());
                write(&format!("{member}.key"), &key.serialize_pem());
            }
        }
    }
}
