//! OpenTelemetry: metrics, violations as log records, and the life of each as a trace, to a collector by OTLP.
//! <https://opentelemetry.io/docs/specs/otlp/>
//!
//! Three outputs with counts of their own: `otlp-logs` and `otlp-traces` count violations, `otlp-metrics` counts how often
//! all metrics were sent. What a collector does not confirm is not counted as delivered.

mod config;

#[cfg(feature = "otlp")]
mod attributes;
#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod grpc;
#[cfg(feature = "otlp")]
mod http;
#[cfg(feature = "otlp")]
mod ids;
#[cfg(feature = "otlp")]
mod logs;
#[cfg(feature = "otlp")]
mod metrics;
#[cfg(feature = "otlp")]
mod outputs;
#[cfg(feature = "otlp")]
mod resource;
#[cfg(feature = "otlp")]
mod secrets;
#[cfg(feature = "otlp")]
mod sender;
#[cfg(feature = "otlp")]
mod traces;

pub use config::{Config, Endpoint, OtlpError, Protocol};
#[cfg(feature = "otlp")]
pub use outputs::Otlp;

/// What stands for it where it was not built in.
#[cfg(not(feature = "otlp"))]
mod absent;
#[cfg(not(feature = "otlp"))]
pub use absent::Otlp;
