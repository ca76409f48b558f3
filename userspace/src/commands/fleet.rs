//! What the commands that look at a fleet have in common: flags, and a host as JSON.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use septwatch_common::Violation;
use serde_json::{Map, Value, json};

use super::{BadInput, watching::span};
use crate::fleet::{
    connect::{Connect, Servers},
    model::{Host, Standing},
    stream::From,
};

/// Which fleet, and how it is reached.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OfFleet {
    /// Servers of the fleet's bus: nats://HOST:PORT or tls://HOST:PORT, more of them with commas. Other hosts are
    /// spoken to through TLS.
    #[arg(long, value_name = "URL")]
    pub fleet: Option<Servers>,
    /// Only what came within this time before now, as in 24h. Without it: all that the stream still has.
    #[arg(long, value_name = "TIME", value_parser = span, requires = "fleet")]
    pub since: Option<Duration>,
    /// Credentials file, as `nsc generate creds` writes it.
    #[arg(long, value_name = "FILE", env = "SEPTWATCH_BUS_CREDENTIALS")]
    pub fleet_credentials: Option<PathBuf>,
    /// Certificate authorities in PEM that the servers' certificates are of; without it the system's.
    #[arg(long, value_name = "FILE", env = "SEPTWATCH_BUS_CA")]
    pub fleet_ca: Option<PathBuf>,
    /// Certificate chain in PEM, where servers ask for one.
    #[arg(long, value_name = "FILE", env = "SEPTWATCH_BUS_CERTIFICATE")]
    pub fleet_certificate: Option<PathBuf>,
    /// Its private key in PEM.
    #[arg(long, value_name = "FILE", env = "SEPTWATCH_BUS_KEY")]
    pub fleet_key: Option<PathBuf>,
    /// Speak to other hosts without TLS.
    #[arg(long, requires = "fleet")]
    pub fleet_plaintext: bool,
}

impl OfFleet {
    /// The way there; none: no fleet is asked for.
    ///
    /// # Errors
    /// It is not to be gone so.
    pub fn connect(&self) -> Result<Option<Connect>> {
        let Some(servers) = self.fleet.clone() else { return Ok(None) };
        let connect = Connect {
            servers,
            credentials: self.fleet_credentials.clone(),
            ca: self.fleet_ca.clone(),
            certificate: self.fleet_certificate.clone(),
            key: self.fleet_key.clone(),
            plaintext: self.fleet_plaintext,
        };
        connect.check().map_err(|error| BadInput(format!("--fleet: {error}")))?;
        Ok(Some(connect))
    }

    /// Where reading begins.
    pub fn from(&self) -> From {
        match self.since.and_then(|since| SystemTime::now().checked_sub(since)) {
            Some(time) => From::Time(time),
            None => From::Start,
        }
    }
}

/// Whether a host that stands so fails a check.
pub const fn fails(standing: Standing) -> bool {
    !matches!(standing, Standing::Good | Standing::Ended)
}

/// The counts that are not 0.
pub fn violations(host: &Host) -> impl Iterator<Item = (&'static str, u64)> {
    let counts = Violation::ALL.into_iter().zip(host.violations);
    counts.filter(|(_, count)| *count != 0).map(|(violation, count)| (violation.name(), count))
}

/// A host, for readers of JSON.
pub fn object(name: &str, host: &Host, standing: Standing) -> Value {
    let violations: Map<_, _> =
        violations(host).map(|(violation, count)| (violation.to_owned(), count.into())).collect();
    json!({
        "type": "host",
        "host": name,
        "passed": !fails(standing),
        "standing": standing.name(),
        "events": host.events,
        "repeated": host.repeated,
        "missing": host.missing(),
        "violations": violations,
        "suspect": host.suspect,
        "reactions": host.reactions,
        "last_event_ns": host.last_ns,
        "state": host.state,
    })
}
