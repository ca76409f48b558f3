//! A septwatch without OpenTelemetry, which reads the same configuration file and says so where it is asked for.

use std::{io, sync::Arc};

use super::{Config, OtlpError};
use crate::collector::{metrics::About, outlet::Outlet, snapshot::Shared};

/// The outputs that there are not.
#[derive(Debug)]
pub struct Otlp;

impl Otlp {
    /// There is none.
    ///
    /// # Errors
    /// Always.
    pub fn check(_: &Config) -> Result<(), OtlpError> {
        Err(OtlpError::NotBuilt)
    }

    /// There is none.
    ///
    /// # Errors
    /// Always.
    pub fn begin(_: &Config, _: &Arc<Shared>, _: &About) -> io::Result<(Self, Vec<Outlet>)> {
        Err(io::Error::other(OtlpError::NotBuilt))
    }

    /// Nothing is to be read again.
    pub fn reload(&self) {}
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::time::Duration;

    use super::*;
    use crate::collector::otlp::Protocol;

    #[test]
    fn who_asks_for_it_is_told_that_it_is_not_there() {
        let config = Config {
            endpoint: "http://127.0.0.1:4317".parse().unwrap(),
            protocol: Protocol::Grpc,
            ca: None,
            headers_file: None,
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            queue: 1,
        };
        let refused = Otlp::check(&config).unwrap_err().to_string();
        assert!(refused.starts_with("otlp.endpoint: this septwatch was built without otlp"), "{refused}");
    }
}
