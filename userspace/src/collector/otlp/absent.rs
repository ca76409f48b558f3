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
