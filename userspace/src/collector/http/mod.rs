//! The agent's HTTP server: a few pages, for whoever may ask, on a thread of its own.
//!
//! A client may be slow, hostile or gone: there are bounds on how many there are, how long each may take, and how much it
//! may send. What is asked for is a fixed set of paths, compared as they are.

mod access;
mod listen;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use thiserror::Error;
use tokio::sync::Notify;

use access::Gate;
pub use access::{Access, AccessError};
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

/// What the server counts of its clients.
#[derive(Debug, Default)]
pub struct Clients {
    /// Requests that were answered.
    pub answered: AtomicU64,
    /// Requests that were not let in.
    pub refused: AtomicU64,
    /// Connections that were closed at once, for there were too many.
    pub turned_away: AtomicU64,
    /// Connections that broke off, sent no HTTP, or took too long.
    pub broken: AtomicU64,
}

impl Clients {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What connections share.
struct Shared {
    gate: Mutex<Arc<Gate>>,
    pages: Arc<dyn Pages>,
    clients: Arc<Clients>,
}

impl Shared {
    fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate.lock().unwrap_or_else(PoisonError::into_inner))
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
        access.check(listen)?;
        let gate = access.read()?;
        let listening =
            listen.begin().map_err(|source| HttpError::Listen { at: listen.to_string(), source })?;
        for socket in &listening {
            access.check_listening(socket)?;
        }
        let addresses = listening.iter().map(ToString::to_string).collect();
        let clients = Arc::default();
        let shared = Arc::new(Shared { gate: Mutex::new(Arc::new(gate)), pages, clients });
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
        *self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner) = gate;
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
