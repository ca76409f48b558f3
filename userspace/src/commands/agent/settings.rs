//! What an agent can be told: each setting once, with its flag, its environment variable, its place in the configuration
//! file, its default and its text. Flags win over the environment, that over the file, that over the default.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    collector::{
        http::Listen,
        otlp::{Endpoint, Protocol},
    },
    commands::values::{Maybe, Size, Time},
    fleet::connect::Servers,
    trust::{self, TrustError},
};

/// Where the configuration is, unless somebody says otherwise.
pub const FILE: &str = "/etc/septwatch/agent.toml";

/// The configuration cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{path}: {source}; `septwatch agent --print-config` prints one")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than root and this user decide what is in it.
    #[error(transparent)]
    Untrusted(#[from] TrustError),
    /// It is not what it has to be.
    #[error("{path}: {message}")]
    Wrong {
        /// Which.
        path: String,
        /// Line, column and what is wrong there.
        message: String,
    },
    /// A default of this program is wrong: a mistake of ours.
    #[error("the default of {setting}: {why}")]
    Default {
        /// Of which setting.
        setting: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// Settings of one section: what was given of them, what came of it, and how the file has them.
macro_rules! section {
    ($section:literal, $name:ident, $given:ident: $about:literal {
        $($(#[doc = $doc:literal])* $(#[arg($($arg:tt)*)])*
        $field:ident: $type:ty = $default:literal, $flag:literal, $env:literal;)*
    }) => {
        #[doc = $about]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        #[doc = concat!("What was given of: ", $about)]
        #[derive(Clone, Debug, Default, clap::Args, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $given {
            $($(#[doc = $doc])*
            #[doc = ""]
            #[doc = concat!("[default: ", $default, "]")]
            #[arg(id = $flag, long = $flag, env = $env, help_heading = concat!("[", $section, "]"))]
            $(#[arg($($arg)*)])*
            pub $field: Option<$type>,)*
        }

        impl $given {
            /// This, and where it says nothing, what the other says.
            fn or(self, other: Self) -> Self {
                Self { $($field: self.$field.or(other.$field),)* }
            }

            /// This, and where it says nothing, the default.
            fn settled(self) -> Result<$name, SettingsError> {
                Ok($name {
                    $($field: match self.$field {
                        Some(value) => value,
                        None => $default.parse().map_err(|why| SettingsError::Default {
                            setting: concat!($section, ".", stringify!($field)),
                            why: format!("{why}"),
                        })?,
                    },)*
                })
            }
        }

        impl $name {
            /// As the configuration file has it.
            fn print(&self, out: &mut String) {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "\n# {}\n[{}]", $about, $section);
                $(
                let doc = concat!($($doc, "\n"),*);
                for line in doc.lines() {
                    let _ = writeln!(out, "#{line}");
                }
                let _ = writeln!(out, "# --{}, {}; default: {}", $flag, $env, $default);
                let _ = writeln!(out, "{} = {}", stringify!($field), toml(&self.$field));
                )*
            }
        }
    };
}

section!("ledger", Ledger, LedgerGiven: "The programs in the kernel and their ledger." {
    /// Most memory that the ledger may take: bytes, or with K, M or G, at least 4K; `none`: what all of this host's
    /// memory would need, at most 0.2 % of it. It is taken as pages are lent.
    #[arg(value_name = "SIZE")]
    limit: Maybe<Size> = "none", "ledger-limit", "SEPTWATCH_LEDGER_LIMIT";
    /// Size of each ring buffer in bytes: a power of two, 4K to 1G; `none`: as large as suits the number of CPUs.
    #[arg(value_name = "SIZE")]
    ring: Maybe<Size> = "none", "ring-bytes", "SEPTWATCH_RING_BYTES";
    /// Measure how long each SEAMCALL takes, at the price of a second program at each function and a record for each call.
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    latency: bool = "false", "latency", "SEPTWATCH_LATENCY";
    /// How long nothing must have been lent before nothing is attached to the page allocator any more: then septwatch costs
    /// a host nothing. A TD that begins waits, up to 100 ms, until all is attached again. `none`: all is always attached,
    /// also while an agent that was killed has not come back.
    #[arg(value_name = "TIME")]
    rest: Maybe<Time> = "10s", "rest", "SEPTWATCH_REST";
    /// Take over what is lent to TDs that run already, from KVM's mirror page tables, at half of a CPU. Without this,
    /// verdicts on them are suspect.
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    resync: bool = "true", "resync", "SEPTWATCH_RESYNC";
    /// How often the ledger is compared with what KVM says of each TD, as `septwatch audit` does, from 1m to a week;
    /// `none`: never.
    #[arg(value_name = "TIME")]
    audit_every: Maybe<Time> = "1h", "audit-every", "SEPTWATCH_AUDIT_EVERY";
    /// How much of one CPU that may take, in percent: 1 to 100.
    #[arg(value_name = "PERCENT")]
    audit_percent: u32 = "2", "audit-percent", "SEPTWATCH_AUDIT_PERCENT";
    /// When the agent is told to end, leave the programs running: the next one takes them over, with all that happened
    /// meanwhile. Without this everything is detached at the end.
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    keep: bool = "true", "keep", "SEPTWATCH_KEEP";
});

section!("policy", PolicySettings, PolicyGiven: "What is done about violations." {
    /// Name of a shipped policy (`septwatch policy list`), or a file; `none`: nothing is done but told.
    #[arg(value_name = "NAME|FILE")]
    name: Maybe<String> = "none", "policy", "SEPTWATCH_POLICY";
    /// Arm it, if it says `armed = true`: without it, it is a dry run that says what it would do.
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    arm: bool = "false", "arm", "SEPTWATCH_ARM";
    /// Follow it even where this kernel cannot carry out all of it.
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_degraded: bool = "false", "allow-degraded", "SEPTWATCH_ALLOW_DEGRADED";
    /// Folder of the audit log.
    #[arg(value_name = "DIR")]
    audit: PathBuf = "/var/log/septwatch", "audit", "SEPTWATCH_AUDIT";
});

section!("metrics", MetricsSettings, MetricsGiven: "Prometheus metrics at /metrics, health at /healthz and /readyz." {
    /// Where to listen: an address with a port, `unix:PATH`, `systemd` for a socket that systemd hands over; `none`:
    /// nowhere. Other addresses than loopback need TLS, and a token or client certificates.
    #[arg(value_name = "ADDRESS")]
    listen: Maybe<Listen> = "127.0.0.1:9815", "metrics-listen", "SEPTWATCH_METRICS_LISTEN";
    /// Certificate chain in PEM; with `tls_key`, TLS is spoken.
    #[arg(value_name = "FILE")]
    tls_certificate: Maybe<PathBuf> = "none", "metrics-tls-certificate", "SEPTWATCH_METRICS_TLS_CERTIFICATE";
    /// Its private key in PEM; nobody else may read it.
    #[arg(value_name = "FILE")]
    tls_key: Maybe<PathBuf> = "none", "metrics-tls-key", "SEPTWATCH_METRICS_TLS_KEY";
    /// Certificate authorities in PEM: clients must show a certificate of one of them.
    #[arg(value_name = "FILE")]
    client_ca: Maybe<PathBuf> = "none", "metrics-client-ca", "SEPTWATCH_METRICS_CLIENT_CA";
    /// File with a token of 16 bytes or more, which clients must show (`Authorization: Bearer`) for every page, health too;
    /// nobody else may read it.
    #[arg(value_name = "FILE")]
    token_file: Maybe<PathBuf> = "none", "metrics-token-file", "SEPTWATCH_METRICS_TOKEN_FILE";
    /// TDs that have metrics of their own at the same time: those with violations first, then those with the most memory.
    #[arg(value_name = "N")]
    tds: u32 = "100", "metrics-tds", "SEPTWATCH_METRICS_TDS";
});

section!("events", EventsSettings, EventsGiven: "Life, violations and reactions as JSON lines, as `septwatch watch --json` prints them." {
    /// A file that is appended to, or `-` for standard output; `none`: nowhere.
    #[arg(value_name = "FILE")]
    file: Maybe<PathBuf> = "none", "events-file", "SEPTWATCH_EVENTS_FILE";
    /// Size from which on FILE becomes FILE.1, and that FILE.2.
    #[arg(value_name = "SIZE")]
    rotate: Size = "64M", "events-rotate", "SEPTWATCH_EVENTS_ROTATE";
    /// Files of earlier that are kept.
    #[arg(value_name = "N")]
    keep: u32 = "5", "events-keep", "SEPTWATCH_EVENTS_KEEP";
    /// Events that may wait for FILE; further ones are lost there, and counted.
    #[arg(value_name = "N")]
    queue: u32 = "8192", "events-queue", "SEPTWATCH_EVENTS_QUEUE";
});

section!("journal", JournalSettings, JournalGiven: "Violations in systemd's journal, each field by itself." {
    /// Write them, where there is a journal.
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enabled: bool = "true", "journal", "SEPTWATCH_JOURNAL";
    /// Violations that may wait for it; further ones are lost there, and counted.
    #[arg(value_name = "N")]
    queue: u32 = "1024", "journal-queue", "SEPTWATCH_JOURNAL_QUEUE";
});

section!("bus", BusSettings, BusGiven: "The fleet's bus: life, violations and reactions go to a NATS server with JetStream, for `septwatch top --fleet` and `septwatch check --fleet`." {
    /// Servers of one cluster: nats://HOST:PORT or tls://HOST:PORT, more of them with commas; `none`: nothing is sent.
    /// Other hosts are spoken to through TLS.
    #[arg(value_name = "URL")]
    servers: Maybe<Servers> = "none", "bus-servers", "SEPTWATCH_BUS_SERVERS";
    /// Credentials file, as `nsc generate creds` writes it; nobody else may read it.
    #[arg(value_name = "FILE")]
    credentials: Maybe<PathBuf> = "none", "bus-credentials", "SEPTWATCH_BUS_CREDENTIALS";
    /// Certificate authorities in PEM that the servers' certificates are of; `none`: the system's.
    #[arg(value_name = "FILE")]
    ca: Maybe<PathBuf> = "none", "bus-ca", "SEPTWATCH_BUS_CA";
    /// This agent's certificate chain in PEM, where servers ask for one.
    #[arg(value_name = "FILE")]
    certificate: Maybe<PathBuf> = "none", "bus-certificate", "SEPTWATCH_BUS_CERTIFICATE";
    /// Its private key in PEM; nobody else may read it.
    #[arg(value_name = "FILE")]
    key: Maybe<PathBuf> = "none", "bus-key", "SEPTWATCH_BUS_KEY";
    /// Speak to other hosts without TLS: everybody on the way can read and change what is sent.
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    plaintext: bool = "false", "bus-plaintext", "SEPTWATCH_BUS_PLAINTEXT";
    /// Name of this host in the fleet, of 1 to 253 characters; `none`: its node name.
    #[arg(value_name = "NAME")]
    host: Maybe<String> = "none", "bus-host", "SEPTWATCH_BUS_HOST";
    /// Folder of what waits to be sent, of this agent alone. An event is there before the kernel's ring gives it up, so
    /// that detection writes to this file system; it waits for no disk unless the host is short of memory.
    #[arg(value_name = "DIR")]
    spool: PathBuf = "/var/lib/septwatch/bus", "bus-spool", "SEPTWATCH_BUS_SPOOL";
    /// Most bytes that it may take, at least 64K. Once it is full, further events are lost there, and counted.
    #[arg(value_name = "SIZE")]
    spool_bytes: Size = "256M", "bus-spool-bytes", "SEPTWATCH_BUS_SPOOL_BYTES";
    /// How long the stream of events keeps them, up to a year, where this agent is the one that makes it.
    #[arg(value_name = "TIME")]
    history: Time = "720h", "bus-history", "SEPTWATCH_BUS_HISTORY";
});

section!("otlp", OtlpSettings, OtlpGiven: "Metrics, violations and their lives to an OpenTelemetry collector, where septwatch was built with it (cargo's feature `otlp`)." {
    /// The collector's URL, such as `http://127.0.0.1:4317` (grpc) or `https://collector.example:4318` (http, which adds
    /// /v1/logs and the like); `none`: nowhere. The unit of systemd that is shipped lets the agent reach this host only:
    /// IPAddressAllow of a drop-in opens it for others.
    #[arg(value_name = "URL")]
    endpoint: Maybe<Endpoint> = "none", "otlp-endpoint", "SEPTWATCH_OTLP_ENDPOINT";
    /// How it is spoken to: `grpc`, or `http` with protobuf.
    #[arg(value_name = "grpc|http")]
    protocol: Protocol = "grpc", "otlp-protocol", "SEPTWATCH_OTLP_PROTOCOL";
    /// Certificate authorities in PEM that the collector's certificate must be of; `none`: those that this host trusts.
    #[arg(value_name = "FILE")]
    ca: Maybe<PathBuf> = "none", "otlp-ca", "SEPTWATCH_OTLP_CA";
    /// File with headers of every request, such as `authorization: Bearer TOKEN`, one a line; nobody else may read it. To
    /// other hosts they go by https only.
    #[arg(value_name = "FILE")]
    headers_file: Maybe<PathBuf> = "none", "otlp-headers-file", "SEPTWATCH_OTLP_HEADERS_FILE";
    /// How often metrics are sent.
    #[arg(value_name = "TIME")]
    interval: Time = "60s", "otlp-interval", "SEPTWATCH_OTLP_INTERVAL";
    /// How long a request may take; after that, and where the collector says so, it is sent again.
    #[arg(value_name = "TIME")]
    timeout: Time = "10s", "otlp-timeout", "SEPTWATCH_OTLP_TIMEOUT";
    /// Violations that may wait for the collector, as log records and again as traces; further ones are lost there, and
    /// counted.
    #[arg(value_name = "N")]
    queue: u32 = "8192", "otlp-queue", "SEPTWATCH_OTLP_QUEUE";
});

section!("privileges", Privileges, PrivilegesGiven: "What the agent may do once everything is attached." {
    /// Give up what is no longer needed: capabilities (`septwatch agent --privileges` lists them), new privileges, system
    /// calls that change mounts, modules or the clock, and loading further programs.
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    confine: bool = "true", "confine", "SEPTWATCH_CONFINE";
});

/// All that was given in one place.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Given {
    /// See [`Ledger`].
    #[command(flatten)]
    pub ledger: LedgerGiven,
    /// See [`PolicySettings`].
    #[command(flatten)]
    pub policy: PolicyGiven,
    /// See [`MetricsSettings`].
    #[command(flatten)]
    pub metrics: MetricsGiven,
    /// See [`EventsSettings`].
    #[command(flatten)]
    pub events: EventsGiven,
    /// See [`JournalSettings`].
    #[command(flatten)]
    pub journal: JournalGiven,
    /// See [`BusSettings`].
    #[command(flatten)]
    pub bus: BusGiven,
    /// See [`OtlpSettings`].
    #[command(flatten)]
    pub otlp: OtlpGiven,
    /// See [`Privileges`].
    #[command(flatten)]
    pub privileges: PrivilegesGiven,
}

/// What an agent was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See [`Ledger`].
    pub ledger: Ledger,
    /// See [`PolicySettings`].
    pub policy: PolicySettings,
    /// See [`MetricsSettings`].
    pub metrics: MetricsSettings,
    /// See [`EventsSettings`].
    pub events: EventsSettings,
    /// See [`JournalSettings`].
    pub journal: JournalSettings,
    /// See [`BusSettings`].
    pub bus: BusSettings,
    /// See [`OtlpSettings`].
    pub otlp: OtlpSettings,
    /// See [`Privileges`].
    pub privileges: Privileges,
}

impl Settings {
    /// What flags and environment say, then the file, then the defaults. `file`: one that must be there; without it, that
    /// at [`FILE`], if there is one.
    ///
    /// # Errors
    /// The file cannot be read, is wrong, or others may write it.
    pub fn settle(given: Given, file: Option<&Path>) -> Result<Self, SettingsError> {
        let of_file = match file {
            Some(path) => read(path)?,
            None => match read(FILE.as_ref()) {
                Err(SettingsError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    Given::default()
                }
                read => read?,
            },
        };
        Ok(Self {
            ledger: given.ledger.or(of_file.ledger).settled()?,
            policy: given.policy.or(of_file.policy).settled()?,
            metrics: given.metrics.or(of_file.metrics).settled()?,
            events: given.events.or(of_file.events).settled()?,
            journal: given.journal.or(of_file.journal).settled()?,
            bus: given.bus.or(of_file.bus).settled()?,
            otlp: given.otlp.or(of_file.otlp).settled()?,
            privileges: given.privileges.or(of_file.privileges).settled()?,
        })
    }

    /// As a configuration file with a text to everything.
    pub fn print(&self) -> String {
        let mut text = format!(
            "# Configuration of `septwatch agent`: {FILE}.\n# Flags and environment variables win over what stands here."
        );
        text.push('\n');
        self.ledger.print(&mut text);
        self.policy.print(&mut text);
        self.metrics.print(&mut text);
        self.events.print(&mut text);
        self.journal.print(&mut text);
        self.bus.print(&mut text);
        self.otlp.print(&mut text);
        self.privileges.print(&mut text);
        text
    }
}

fn read(path: &Path) -> Result<Given, SettingsError> {
    let shown = || path.display().to_string();
    let failed = |source| SettingsError::File { path: shown(), source };
    let mut file = trust::open(path).map_err(failed)?;
    trust::check(path, &file)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    toml::from_str(&text).map_err(|error| SettingsError::Wrong {
        path: shown(),
        message: error.to_string().trim_end().to_owned(),
    })
}

/// A value as TOML has it.
fn toml<T: Serialize>(value: &T) -> String {
    match serde_json::json!(value) {
        serde_json::Value::String(text) => toml_edit::Value::from(text).to_string(),
        other => other.to_string(),
    }
}
