//! What is read from files to speak to a collector: headers such as `authorization`, and whom to trust.

use std::path::Path;

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use super::{Config, OtlpError};
use crate::{
    authorities,
    collector::http::access::{self, AccessError},
};

/// Headers that the transports write themselves.
const OWN: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

/// The setting of the file with headers, in messages.
const HEADERS_FILE: &str = "otlp.headers_file";

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Headers of every request.
    pub headers: HeaderMap,
    /// Authorities in PEM; none: no TLS is spoken.
    pub authorities: Option<Vec<u8>>,
}

impl Secrets {
    /// Reads the files.
    ///
    /// # Errors
    /// One is not there, wrong, or others may read what is secret.
    pub fn read(config: &Config) -> Result<Self, OtlpError> {
        let headers = config.headers_file.as_deref().map(headers).transpose()?.unwrap_or_default();
        let authorities = match &config.ca {
            _ if !config.endpoint.is_tls() => None,
            Some(path) => Some(access::authorities("otlp.ca", path)?),
            None => Some(authorities::of_host()?.1),
        };
        Ok(Self { headers, authorities })
    }
}

/// Lines of `name: value`; empty ones, and those that begin with `#`, are none.
fn headers(path: &Path) -> Result<HeaderMap, AccessError> {
    let bytes = access::secret(HEADERS_FILE, path)?;
    let mut headers = HeaderMap::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        // The line itself is not shown: it is secret.
        let wrong = |what: &str| access::file(HEADERS_FILE, path, &format_args!("line {number}: {what}"));
        let at = line.iter().position(|byte| *byte == b':').ok_or_else(|| wrong("not `name: value`"))?;
        let name =
            HeaderName::from_bytes(line[..at].trim_ascii()).map_err(|_| wrong("not a header's name"))?;
        if OWN.contains(&name.as_str())
            || name.as_str().starts_with("grpc-")
            || name.as_str().ends_with("-bin")
        {
            return Err(wrong(&format!("{name} is not for this file")));
        }
        let value = line[at + 1..].trim_ascii();
        if !value.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err(wrong("not printable ASCII characters"));
        }
        let mut value = HeaderValue::from_bytes(value).map_err(|_| wrong("not a header's value"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn headers_are_secret_and_each_stands_on_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        let tried = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            headers(&path).map_err(|error| error.to_string())
        };
        let read = tried("# of ours\n\nAuthorization: Bearer a:b\r\nx-tenant:7\n", 0o600).unwrap();
        assert_eq!(read["authorization"], "Bearer a:b");
        assert!(read["authorization"].is_sensitive() && read["x-tenant"] == "7");
        assert!(!format!("{read:?}").contains("Bearer"), "{read:?}");
        let refused = tried("x-tenant: 7\n", 0o640).unwrap_err();
        assert!(refused.contains("0640") && refused.contains(HEADERS_FILE), "{refused}");
        for text in [
            "secret",
            "a b: secret",
            "content-type: secret",
            "grpc-timeout: secret",
            "a: \u{7}secret",
            ": secret",
        ] {
            let refused = tried(text, 0o600).unwrap_err();
            assert!(refused.contains("line 1") && !refused.contains("secret"), "{refused}");
        }
    }
}
