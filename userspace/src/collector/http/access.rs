//! Who may ask: TLS, client certificates, a token.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use thiserror::Error;

use super::listen::{Listen, Listening};
use crate::trust;

/// What comes before a token.
const BEARER: &[u8] = b"Bearer ";
/// Shortest token, in bytes.
const SHORTEST: usize = 16;
/// Longest file of a token, in bytes.
const LONGEST: u64 = 4096;

/// Others may not be let in as it is configured.
#[derive(Debug, Error)]
pub enum AccessError {
    /// A file cannot be used.
    #[error("{setting}: {}: {what}", path.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// One setting needs another.
    #[error("{setting} needs {needs}")]
    Needs {
        /// Which.
        setting: &'static str,
        /// Which other.
        needs: &'static str,
    },
    /// Everybody in a network could ask.
    #[error(
        "metrics.listen: {address} is open to others than this host, which needs {needs}; 127.0.0.1:9815 is not"
    )]
    Open {
        /// Where it would listen.
        address: String,
        /// What is missing.
        needs: &'static str,
    },
    /// Certificate and key are no pair, or of a kind that is not known.
    #[error("metrics.tls_certificate and metrics.tls_key: {0}")]
    Tls(String),
}

/// What is configured of who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Certificate chain in PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Its key in PEM.
    pub tls_key: Option<PathBuf>,
    /// Certificate authorities of clients in PEM.
    pub client_ca: Option<PathBuf>,
    /// File with a token.
    pub token_file: Option<PathBuf>,
}

/// The same, read.
#[derive(Debug, Default)]
pub struct Gate {
    /// TLS, where it is spoken.
    pub tls: Option<Arc<ServerConfig>>,
    /// The token that must be shown.
    token: Option<Vec<u8>>,
}

impl Gate {
    /// Whether a request with this `Authorization` may be answered.
    pub fn lets_in(&self, authorization: Option<&[u8]>) -> bool {
        let Some(token) = &self.token else { return true };
        // The scheme is of any case. RFC 9110, 11.1
        let shown = authorization.and_then(|value| value.split_at_checked(BEARER.len()));
        let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(BEARER)).map(|(_, shown)| shown);
        // Every byte is looked at: how far a token is right must not be told by the time that this takes.
        shown.is_some_and(|shown| {
            shown.len() == token.len()
                && shown.iter().zip(token).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
        })
    }
}

impl Access {
    /// Whether this is enough for an address.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self, listen: &Listen) -> Result<(), AccessError> {
        match listen {
            Listen::Tcp(address) if !address.ip().is_loopback() => self.check_open(address.to_string()),
            _ => Ok(()),
        }
    }

    /// The same for a socket that listens already.
    ///
    /// # Errors
    /// What is missing.
    pub fn check_listening(&self, listening: &Listening) -> Result<(), AccessError> {
        if listening.is_open() { self.check_open(listening.to_string()) } else { Ok(()) }
    }

    fn check_open(&self, address: String) -> Result<(), AccessError> {
        let needs = match (&self.tls_certificate, &self.client_ca, &self.token_file) {
            (None, ..) => {
                "metrics.tls_certificate, metrics.tls_key, and metrics.token_file or metrics.client_ca"
            }
            (Some(_), None, None) => "metrics.token_file or metrics.client_ca",
            _ => return Ok(()),
        };
        Err(AccessError::Open { address, needs })
    }

    /// Reads the files.
    ///
    /// # Errors
    /// One is not there, wrong, or others may read what is secret.
    pub fn read(&self) -> Result<Gate, AccessError> {
        let token = self.token_file.as_deref().map(token).transpose()?;
        let tls = match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Arc::new(self.tls(certificate, key)?)),
            (Some(_), None) => {
                return Err(AccessError::Needs {
                    setting: "metrics.tls_certificate",
                    needs: "metrics.tls_key",
                });
            }
            (None, Some(_)) => {
                return Err(AccessError::Needs {
                    setting: "metrics.tls_key",
                    needs: "metrics.tls_certificate",
                });
            }
            (None, None) if self.client_ca.is_some() => {
                let needs = "metrics.tls_certificate and metrics.tls_key";
                return Err(AccessError::Needs { setting: "metrics.client_ca", needs });
            }
            (None, None) => None,
        };
        Ok(Gate { tls, token })
    }

    fn tls(&self, certificate: &Path, key: &Path) -> Result<ServerConfig, AccessError> {
        let chain = certificates("metrics.tls_certificate", certificate)?;
        let pem = secret("metrics.tls_key", key)?;
        let wrong = |error: &dyn std::fmt::Display| file("metrics.tls_key", key, error);
        let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| AccessError::Tls(error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates("metrics.client_ca", path)? {
                    roots.add(authority).map_err(|error| file("metrics.client_ca", path, &error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let verifier = verifier.map_err(|error| file("metrics.client_ca", path, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        builder.with_single_cert(chain, private).map_err(|error| AccessError::Tls(error.to_string()))
    }
}

/// What is wrong with a file that a setting names.
pub fn file(setting: &'static str, path: &Path, what: &dyn std::fmt::Display) -> AccessError {
    AccessError::File { setting, path: path.to_owned(), what: what.to_string() }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, AccessError> {
    trust::read(path).map(|(_, bytes)| bytes).map_err(|what| file(setting, path, &what))
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let pem = read(setting, path)?;
    let read = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|error| file(setting, path, &error))?;
    if read.is_empty() {
        return Err(file(setting, path, &"no certificate in it (PEM, `-----BEGIN CERTIFICATE-----`)"));
    }
    Ok(read)
}

/// Certificates as they stand in their file, which has at least one.
///
/// # Errors
/// It has none, or cannot be read.
pub fn authorities(setting: &'static str, path: &Path) -> Result<Vec<u8>, AccessError> {
    certificates(setting, path)?;
    read(setting, path)
}

/// What nobody else may read.
///
/// # Errors
/// Somebody else may, or it cannot be read.
pub fn secret(setting: &'static str, path: &Path) -> Result<Vec<u8>, AccessError> {
    trust::secret(path).map_err(|what| file(setting, path, &what))
}

fn token(path: &Path) -> Result<Vec<u8>, AccessError> {
    let setting = "metrics.token_file";
    let bytes = secret(setting, path)?;
    let token = bytes.trim_ascii();
    if bytes.len() as u64 > LONGEST || token.len() < SHORTEST || !token.iter().all(u8::is_ascii_graphic) {
        let what = format!("not one line of {SHORTEST} to {LONGEST} printable ASCII characters");
        return Err(file(setting, path, &what));
    }
    Ok(token.to_vec())
}
