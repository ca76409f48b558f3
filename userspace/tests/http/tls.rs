//! TLS, and who does not get through with it.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use septwatch::collector::http::{Access, Server};

use super::support::*;

/// Writes an authority with a server and a client, and a client of another authority.
fn write(folder: &Path) {
    for (authority, members) in [("ca", &["server", "client"][..]), ("other", &["stranger"])] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        file(folder, &format!("{authority}.pem"), &params.self_signed(&key).unwrap().pem(), 0o600);
        let issuer = Issuer::new(params, key);
        for member in members {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            file(folder, &format!("{member}.pem"), &params.signed_by(&key, &issuer).unwrap().pem(), 0o600);
            file(folder, &format!("{member}.key"), &key.serialize_pem(), 0o600);
        }
    }
}

fn access(folder: &Path) -> Access {
    Access {
        tls_certificate: Some(folder.join("server.pem")),
        tls_key: Some(folder.join("server.key")),
        ..Access::default()
    }
}

/// What is answered to a client that trusts the authority in a folder, and shows the certificate of a member.
fn scrape(
    server: &Server,
    folder: &Path,
    version: &'static SupportedProtocolVersion,
    member: Option<&str>,
) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match member {
        None => builder.with_no_client_auth(),
        Some(member) => {
            let at = |kind| folder.join(format!("{member}.{kind}"));
            let chain = vec![CertificateDer::from_pem_file(at("pem")).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(at("key")).unwrap()).unwrap()
        }
    };
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, connect(server));
    stream.write_all(SCRAPE)?;
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Err(error) if text.is_empty() => Err(error),
        _ => Ok(text),
    }
}

#[test]
fn both_versions_are_spoken() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let server = begin(access(folder.path()));
    for version in [&TLS12, &TLS13] {
        assert_eq!(status(&scrape(&server, folder.path(), version, None).unwrap()), Some(200));
    }
}

#[test]
fn a_handshake_that_does_not_go_on_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let server = begin(access(folder.path()));
    let mut silent = connect(&server);
    let mut begun_only = connect(&server);
    // A record that says that 512 bytes follow.
    begun_only.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    let begun = Instant::now();
    assert_eq!((rest(&mut silent).len(), rest(&mut begun_only).len()), (0, 0));
    assert!(begun.elapsed() < LONG && begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
    until(&server, "timeouts", |clients| &clients.timeouts, 2);
    let _ = said(connect(&server), SCRAPE);
    until(&server, "broken", |clients| &clients.broken, 1);
}

#[test]
fn a_new_certificate_is_shown_after_a_reload_and_a_wrong_one_never() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(old.path());
    write(new.path());
    let here = tempfile::tempdir().unwrap();
    let put = |from: &Path, name: &str| {
        fs::copy(from.join(name), here.path().join(name)).unwrap();
    };
    put(old.path(), "server.pem");
    put(old.path(), "server.key");
    let server = begin(access(here.path()));
    let shown = |folder: &Path| scrape(&server, folder, &TLS13, None).is_ok();
    assert!(shown(old.path()) && !shown(new.path()));
    put(new.path(), "server.pem");
    assert!(server.reload().is_err(), "the key is another certificate's");
    assert!(shown(old.path()) && !shown(new.path()));
    put(new.path(), "server.key");
    server.reload().unwrap();
    assert!(!shown(old.path()) && shown(new.path()));
}

#[test]
fn files_that_never_end_or_never_begin_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let access = access(folder.path());
    for wrong in [
        Access { tls_certificate: Some(pipe.clone()), ..access.clone() },
        Access { tls_key: Some(pipe.clone()), ..access.clone() },
        Access { client_ca: Some(pipe.clone()), ..access.clone() },
        Access { token_file: Some(pipe.clone()), ..access.clone() },
        Access { tls_certificate: Some("/dev/zero".into()), ..access.clone() },
    ] {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let listen = "127.0.0.1:0".parse().unwrap();
            sender.send(Server::begin(&listen, wrong, Arc::new(Fixed)).err().map(|error| error.to_string()))
        });
        let why = receiver.recv_timeout(LONG).unwrap_or_else(|_| panic!("it hangs")).unwrap();
        assert!(why.contains("not a regular file"), "{why}");
    }
}

#[test]
fn tls_is_spoken_and_clients_show_their_certificate() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let access = access(folder.path());
    let server = begin(access.clone());
    let scrape = |server: &Server, member| scrape(server, folder.path(), &TLS13, member);
    assert_eq!(status(&scrape(&server, None).unwrap()), Some(200));
    let plain = ask(&server, "GET /metrics HTTP/1.1");
    assert!(!plain.contains("200 OK"), "{plain}");
    let server = begin(Access { client_ca: Some(folder.path().join("ca.pem")), ..access.clone() });
    assert!(scrape(&server, None).is_err(), "no certificate");
    assert_eq!(status(&scrape(&server, Some("client")).unwrap()), Some(200));
    assert!(scrape(&server, Some("stranger")).is_err(), "of another authority");
    fs::set_permissions(folder.path().join("server.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(access.read().unwrap_err().to_string().contains("chmod 0600"));
}
