//! Whom this host trusts, for what speaks TLS to others: a webhook and a collector are often a company's own, with its own
//! certificates.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider};

/// Where distributions keep them.
const TRUSTED: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// There is nobody to trust.
#[derive(Debug, Error)]
pub enum AuthoritiesError {
    /// SSL_CERT_FILE cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// None of the usual files is there.
    #[error("no certificates that this host trusts: none of {}", TRUSTED.join(", "))]
    None,
    /// A file without certificates.
    #[error("no certificate in it (PEM, `-----BEGIN CERTIFICATE-----`)")]
    Empty,
}

/// The file of this host's authorities, or that which SSL_CERT_FILE names, and what is in it.
///
/// # Errors
/// There is none.
pub fn of_host() -> Result<(PathBuf, Vec<u8>), AuthoritiesError> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from) {
        let read = std::fs::read(&path);
        return match read {
            Ok(pem) => Ok((path, pem)),
            Err(source) => Err(AuthoritiesError::File { path, source }),
        };
    }
    let mut found = TRUSTED.iter().map(Path::new);
    found.find_map(|path| Some((path.to_owned(), std::fs::read(path).ok()?))).ok_or(AuthoritiesError::None)
}

/// TLS to whom these authorities know.
///
/// # Errors
/// There is no certificate.
pub fn tls(pem: &[u8]) -> Result<TlsConfig, AuthoritiesError> {
    let certificates: Vec<_> = ureq::tls::parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(AuthoritiesError::Empty);
    }
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}
