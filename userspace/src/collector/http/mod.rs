//! The agent's HTTP server: a few pages, for whoever may ask, on a thread of its own.
//!
//! A client may be slow, hostile or gone: there are bounds on how many there are, how long each may take, and how much it
//! may send. What is asked for is a fixed set of paths, compared as they are.
//!
//! Where a token or client certificates are asked for, every page needs them, health included, on every address: a page
//! that answers without them would tell strangers that there is an agent, and one on loopback any user of the host. A prober
//! that cannot show a token is given a Unix socket, or an address on loopback without one.

pub mod access;
mod clients;
mod listen;
mod patient;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use thiserror::Error;
use tokio::sync::Notify;

use access::Gate;

use crate::locked::lock;
pub use access::{Access, AccessError};
pub use clients::{CLASSES, Clients};
pub use listen::Listen;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// What is answered.
pub trait Pages: Send + Sync + 'static {
    /// The page at a path, which begins with `/` and has no query, for a client that accepts such types (the header
    /// `Accept`; empty where there is none); none: there is no such page.
    fn page(&self, path: &str, accept: &str) -> Option<Page>;
}

/// The server cannot be.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Nobody may be let in as it is configured.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It cannot listen.
    #[error("it cannot listen at {at}: {source}")]
    Listen {
        /// Where.
        at: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No more threads or descriptors.
    #[error("the server's thread: {0}")]
    Thread(#[source] io::Error),
}

/// How much clients may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at the same time; further ones are closed at once.
    connections: usize,
    /// How long a TLS handshake, or a request's head, may take. A connection that is kept may idle as long.
    head: Duration,
    /// How long a client may take nothing of an answer.
    write: Duration,
    /// Age from which on a connection is not kept after an answer: a scraper connects again.
    kept: Duration,
    /// How long a connection may last in all.
    whole: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(5),
    write: Duration::from_secs(5),
    kept: Duration::from_secs(45),
    whole: Duration::from_secs(60),
};

/// What connections share.
struct Shared {
    limits: Limits,
    gate: Mutex<Arc<Gate>>,
    pages: Arc<dyn Pages>,
    clients: Arc<Clients>,
}

impl Shared {
    fn gate(&self) -> Arc<Gate> {
        Arc::clone(&lock(&self.gate))
    }
}

/// A server at work. Dropping it ends it.
pub struct Server {
    access: Access,
    shared: Arc<Shared>,
    addresses: Vec<String>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to serve.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub fn begin(listen: &Listen, access: Access, pages: Arc<dyn Pages>) -> Result<Self, HttpError> {
        Self::begin_within(LIMITS, listen, access, pages)
    }

    fn begin_within(
        limits: Limits,
        listen: &Listen,
        access: Access,
        pages: Arc<dyn Pages>,
    ) -> Result<Self, HttpError> {
        access.check(listen)?;
        let gate = access.read()?;
        let listening =
            listen.begin().map_err(|source| HttpError::Listen { at: listen.to_string(), source })?;
        for socket in &listening {
            access.check_listening(socket)?;
        }
        let addresses = listening.iter().map(ToString::to_string).collect();
        let clients = Arc::default();
        let shared = Arc::new(Shared { limits, gate: Mutex::new(Arc::new(gate)), pages, clients });
        let stop = Arc::new(Notify::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(HttpError::Thread)?;
        let thread = thread::Builder::new().name("septwatch-http".to_owned()).spawn({
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            move || runtime.block_on(serve::serve(listening, shared, stop))
        });
        let thread = Some(thread.map_err(HttpError::Thread)?);
        Ok(Self { access, shared, addresses, stop, thread })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// What it counts of its clients.
    pub fn clients(&self) -> Arc<Clients> {
        Arc::clone(&self.shared.clients)
    }

    /// Reads certificates and the token again, for connections to come.
    ///
    /// # Errors
    /// They are wrong: the ones before stay.
    pub fn reload(&self) -> Result<(), AccessError> {
        let gate = Arc::new(self.access.read()?);
        *lock(&self.shared.gate) = gate;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // It caught what its pages did.
            let _ = thread.join();
        }
    }
}
