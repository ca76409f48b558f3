//! The way to a NATS server, and what is asked of it before anything is told.

use std::{fmt, io, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use thiserror::Error;

use crate::{here, trust};

/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Servers of one cluster: `nats://HOST:PORT`, or `tls://HOST:PORT`, more of them with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(Vec<ServerAddr>);

impl FromStr for Servers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = |one: &str| match one.parse::<ServerAddr>() {
            Ok(server) if ["nats", "tls"].contains(&server.scheme()) && !server.host().is_empty() => {
                Ok(server)
            }
            _ => Err(format!(
                "{one:?} is no server: nats://HOST[:PORT] or tls://HOST[:PORT], more of them with commas"
            )),
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

/// Without what is secret in them.
impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, server) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}://{}:{}", server.scheme(), server.host(), server.port())?;
        }
        Ok(())
    }
}

impl serde::Serialize for Servers {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let servers: Vec<_> = self.0.iter().map(|server| server.clone().into_inner().to_string()).collect();
        serializer.serialize_str(&servers.join(","))
    }
}

/// A connection cannot be made as it is configured, or not now.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// What is sent could be read on its way.
    #[error(
        "{0} is on another host: what is sent there goes through TLS, tls://, unless plaintext is allowed"
    )]
    Plaintext(String),
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
    #[error("a client's certificate needs its key, and a key its certificate")]
    Half,
    /// There is no connection.
    #[error("no connection to {servers}: {why}")]
    Refused {
        /// Where to.
        servers: String,
        /// Why.
        why: async_nats::ConnectError,
    },
}

/// Where a server is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Servers of one cluster.
    pub servers: Servers,
    /// A credentials file, as `nsc generate creds` writes it: a JWT and the seed of its key.
    pub credentials: Option<PathBuf>,
    /// Certificate authorities in PEM; none: the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain in PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key in PEM.
    pub key: Option<PathBuf>,
    /// No TLS, to other hosts neither.
    pub plaintext: bool,
}

impl Connect {
    /// Whether a connection may be made so, as far as that is known beforehand.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self) -> Result<(), ConnectError> {
        for server in &self.servers.0 {
            if server.scheme() != "tls" && !self.plaintext && !here::is_own(server.host()) {
                return Err(ConnectError::Plaintext(Servers(vec![server.clone()]).to_string()));
            }
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err(ConnectError::Half);
        }
        let secrets = [("credentials", &self.credentials), ("key", &self.key)];
        for (setting, path) in
            secrets.into_iter().filter_map(|(setting, path)| Some((setting, path.as_ref()?)))
        {
            trust::secret(path).map_err(|what| ConnectError::File { setting, path: path.clone(), what })?;
        }
        Ok(())
    }

    /// Connects; `saw` is told what happens to the connection. Once it has ended, it is no more.
    ///
    /// # Errors
    /// There is no server, it does not answer in time, or it lets nobody in.
    pub async fn connect(
        &self,
        name: &str,
        saw: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Client, ConnectError> {
        self.check()?;
        let saw = Arc::new(saw);
        let mut options = ConnectOptions::new()
            .name(name)
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .ping_interval(PATIENCE)
            .max_reconnects(1)
            .event_callback(move |event| {
                let saw = Arc::clone(&saw);
                async move { saw(event) }
            });
        if let Some(path) = &self.credentials {
            let text = trust::secret(path)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "not text".to_owned()));
            let options_or = text
                .and_then(|text| options.credentials(&text).map_err(|error: io::Error| error.to_string()));
            options = options_or.map_err(|what| ConnectError::File {
                setting: "credentials",
                path: path.clone(),
                what,
            })?;
        }
        if let Some(ca) = &self.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        // Who tells where to find certificates wants them looked at.
        options = options.require_tls(self.ca.is_some() || self.certificate.is_some());
        let connected = tokio::time::timeout(2 * PATIENCE, options.connect(self.servers.0.clone())).await;
        let refused = |why| ConnectError::Refused { servers: self.servers.to_string(), why };
        match connected {
            Ok(connected) => connected.map_err(refused),
            Err(_) => Err(refused(async_nats::ConnectError::new(ConnectErrorKind::TimedOut))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    fn to(servers: &str) -> Connect {
        let servers = servers.parse().unwrap();
        Connect { servers, credentials: None, ca: None, certificate: None, key: None, plaintext: false }
    }

    #[test]
    fn other_hosts_are_spoken_to_through_tls() {
        for good in [
            "nats://127.0.0.1:4222",
            "localhost",
            "nats://[::1]",
            "tls://bus.example.org,tls://10.0.0.1:4223",
        ] {
            to(good).check().unwrap();
        }
        let open = to("tls://a,nats://10.0.0.1:4222");
        let error = open.check().unwrap_err().to_string();
        assert!(error.contains("nats://10.0.0.1:4222") && error.contains("tls://"), "{error}");
        Connect { plaintext: true, ..open }.check().unwrap();
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for bad in ["", "http://a", "nats://a,,nats://b", "nats://:::"] {
            let error = bad.parse::<Servers>().unwrap_err();
            assert!(error.contains("nats://HOST[:PORT]"), "{bad}: {error}");
        }
        let secret: Servers = "nats://user:secret@a,tls://b:1".parse().unwrap();
        assert_eq!(secret.to_string(), "nats://a:4222,tls://b:1");
    }

    #[test]
    fn secrets_that_others_may_read_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("creds");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let connect = Connect { credentials: Some(path.clone()), ..to("localhost") };
        let error = connect.check().unwrap_err().to_string();
        assert!(error.starts_with("credentials: ") && error.contains("chmod 0600"), "{error}");
        assert!(matches!(Connect { key: Some(path), ..to("localhost") }.check(), Err(ConnectError::Half)));
    }
}
