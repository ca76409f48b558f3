//! Where a collector is, and how it is spoken to.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;
use ureq::http::Uri;

use crate::{authorities::AuthoritiesError, collector::http::AccessError, here};

/// It cannot be sent to as it is configured.
#[derive(Debug, Error)]
pub enum OtlpError {
    /// This program cannot.
    #[error("otlp.endpoint: this septwatch was built without otlp (cargo's feature `otlp`)")]
    NotBuilt,
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] AccessError),
    /// Nobody is trusted.
    #[error("otlp.endpoint: {0}; the setting otlp.ca names a file")]
    Authorities(#[from] AuthoritiesError),
    /// Everybody on the way could read secrets.
    #[error("otlp.headers_file: what is in it would go to {0} for everybody on the way to read: https")]
    Open(Endpoint),
    /// A setting that nothing would follow.
    #[error("otlp.ca needs an otlp.endpoint with https")]
    NoTls,
    /// The transport does not take it.
    #[error("otlp.endpoint: {0}")]
    Transport(String),
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP with protobuf.
    Http,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http" => Ok(Self::Http),
            _ => Err("neither grpc nor http".to_owned()),
        }
    }
}

/// A collector's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Uri);

impl Endpoint {
    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Whether what is sent stays on this host.
    pub fn is_loopback(&self) -> bool {
        here::is_own(self.0.host().unwrap_or_default())
    }

    /// The URL with a path below its own.
    pub fn at(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Option<Uri> = text.parse().ok();
        let is_one = |uri: &Uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.query().is_none()
                // A password has no place in a URL, which is shown.
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        };
        uri.filter(is_one).map(Self).ok_or_else(|| {
            "not a URL such as http://127.0.0.1:4317 or https://collector.example:4318".to_owned()
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is configured of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the collector is.
    pub endpoint: Endpoint,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Certificate authorities in PEM; none: those of this host.
    pub ca: Option<PathBuf>,
    /// Headers that nobody else may read.
    pub headers_file: Option<PathBuf>,
    /// How often metrics are sent.
    pub interval: Duration,
    /// How long one request may take.
    pub timeout: Duration,
    /// Violations that may wait, for each output.
    pub queue: usize,
}

impl Config {
    /// Whether settings go together.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<(), OtlpError> {
        if self.headers_file.is_some() && !self.endpoint.is_tls() && !self.endpoint.is_loopback() {
            return Err(OtlpError::Open(self.endpoint.clone()));
        }
        if self.ca.is_some() && !self.endpoint.is_tls() {
            return Err(OtlpError::NoTls);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_without_secrets() {
        for (text, tls, loopback) in [
            ("http://127.0.0.1:4317", false, true),
            ("http://[::1]:4317/", false, true),
            ("http://localhost:4318/prefix/", false, true),
            ("https://collector.example", true, false),
            ("http://10.0.0.1:4317", false, false),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.is_tls(), endpoint.is_loopback()), (tls, loopback), "{text}");
            assert_eq!(endpoint.to_string(), text.trim_end_matches('/'));
        }
        let endpoint: Endpoint = "http://localhost:4318/prefix/".parse().unwrap();
        assert_eq!(endpoint.at("/v1/logs"), "http://localhost:4318/prefix/v1/logs");
        for text in
            ["127.0.0.1:4317", "ftp://a:1", "http://", "http://me:secret@a:1", "http://a:1/?token=x", ""]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_do_not_go_where_everybody_reads_them() {
        let of = |endpoint: &str, headers: bool, ca: bool| Config {
            endpoint: endpoint.parse().unwrap(),
            protocol: Protocol::Grpc,
            ca: ca.then(|| "/ca".into()),
            headers_file: headers.then(|| "/headers".into()),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            queue: 1,
        };
        assert!(of("http://10.0.0.1:4317", false, false).check().is_ok());
        assert!(of("http://10.0.0.1:4317", true, false).check().is_err());
        assert!(of("https://10.0.0.1:4317", true, true).check().is_ok());
        assert!(of("http://127.0.0.1:4317", true, false).check().is_ok());
        assert!(of("http://127.0.0.1:4317", false, true).check().is_err());
    }
}
