//! Sending, whichever way is configured; secrets are read again when somebody says so.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Config, OtlpError, Protocol,
    export::{Export, Refused},
    grpc::Grpc,
    http::Http,
    secrets::Secrets,
};
use crate::collector::outlet::Undelivered;

/// What the other side knows us as.
pub const AGENT: &str = concat!("septwatch/", env!("CARGO_PKG_VERSION"));

/// Characters of what the other side says that are passed on.
const TOLD: usize = 300;

/// Words that may be the other side's, for people: in one line, and not too many.
pub fn told(words: &dyn Display) -> String {
    let words = words.to_string();
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD).collect()
}

/// A way to the collector, for one output's thread.
#[derive(Debug)]
pub struct Sender {
    config: Config,
    way: Way,
    reload: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Way {
    Grpc(Box<Grpc>),
    Http(Box<Http>),
}

impl Way {
    fn new(config: &Config) -> Result<Self, OtlpError> {
        let secrets = Secrets::read(config)?;
        Ok(match config.protocol {
            Protocol::Grpc => Self::Grpc(Box::new(Grpc::new(config, secrets)?)),
            Protocol::Http => Self::Http(Box::new(Http::new(config, secrets)?)),
        })
    }
}

impl Sender {
    /// Whoever sets `reload` wants the files to be read again.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(config: &Config, reload: Arc<AtomicBool>) -> Result<Self, OtlpError> {
        Ok(Self { config: config.clone(), way: Way::new(config)?, reload })
    }

    /// Sends a request; what of it was refused.
    ///
    /// # Errors
    /// All of it was, or it did not arrive.
    pub fn send<E: Export>(&mut self, request: E) -> Result<Refused, Undelivered> {
        if self.reload.swap(false, Ordering::AcqRel) {
            match Way::new(&self.config) {
                Ok(way) => self.way = way,
                Err(error) => eprintln!("septwatch: headers and authorities stay as they were: {error}"),
            }
        }
        let answer = match &self.way {
            Way::Grpc(grpc) => grpc.send(request),
            Way::Http(http) => http.send(&request),
        };
        let Refused { items, why } = E::refused(answer?);
        Ok(Refused { items: items.max(0), why: told(&why) })
    }
}
