//! The fleet's bus: every event goes into a spool on disk, and from there to a NATS server, at least once and in order.
//!
//! An event is in the spool before the kernel's ring gives up its record: an agent that is killed in between leaves the
//! record to the next one, and what then comes twice has the same id.

mod publish;
pub mod spool;
pub mod state;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::Notify;

use super::{message::Message, outlet::Counts, snapshot::Shared};
use crate::{
    collector::metrics::About,
    fleet::{
        connect::Connect,
        envelope::{Origin, Wrapper},
    },
};
use publish::Publisher;
use spool::{Spool, SpoolError};
use state::Teller;

/// The bus cannot be used.
#[derive(Debug, Error)]
pub enum BusError {
    /// Its spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What is in its spool cannot be read, or there are no more threads.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The bus at work.
#[derive(Debug)]
pub struct Bus {
    origin: Origin,
    wrapper: Wrapper,
    spool: Spool,
    counts: Arc<Counts>,
    wake: Arc<Notify>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    line: String,
    /// The event before was lost.
    loses: bool,
}

impl Bus {
    /// Name of the output.
    pub const NAME: &str = "bus";

    /// Begins; what an agent before left in the spool in this folder is sent first. The folder may take so many bytes.
    ///
    /// # Errors
    /// See [`BusError`]. That there is no server is none.
    pub fn begin(
        connect: Connect,
        history: Duration,
        (folder, limit): (&Path, u64),
        origin: Origin,
        shared: &Arc<Shared>,
        about: &About,
    ) -> Result<Self, BusError> {
        let (spool, mut unsent) = Spool::open(folder, limit)?;
        let (counts, wake) = (Arc::new(Counts::default()), Arc::new(Notify::new()));
        counts.offered(unsent.count()?);
        shared.output(Self::NAME, Arc::clone(&counts));
        let ending = Arc::new(AtomicBool::new(false));
        let publisher = Publisher {
            connect,
            history,
            unsent,
            counts: Arc::clone(&counts),
            wake: Arc::clone(&wake),
            ending: Arc::clone(&ending),
            host: origin.host.clone(),
            done: None,
            teller: Teller::new(origin.clone(), Arc::clone(shared), about),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new()
            .name("septwatch-bus".to_owned())
            .spawn(move || runtime.block_on(publisher.run()))?;
        Ok(Self {
            wrapper: origin.wrapper()?,
            origin,
            spool,
            counts,
            wake,
            ending,
            thread: Some(thread),
            line: String::new(),
            loses: false,
        })
    }

    /// Puts a message into the spool. It waits for no server.
    pub fn offer(&mut self, message: &Message) {
        self.counts.offered(1);
        self.line.clear();
        let id = self.origin.id(message.number);
        publish::begin_line(&mut self.line, message.topic, &id);
        self.wrapper.wrap(message.number, &message.line, &mut self.line);
        self.line.push('\n');
        match self.spool.append(self.line.as_bytes()) {
            Ok(()) => {
                self.loses = false;
                self.wake.notify_one();
            }
            Err(error) => {
                let why = error.to_string();
                self.counts.lost(1, &why);
                // Not for each, and the way to the server has its own troubles.
                if !std::mem::replace(&mut self.loses, true) {
                    eprintln!("septwatch: output bus: {why}: events are lost there, and counted");
                }
            }
        }
    }

    /// Begins to end it.
    pub fn close(&self) {
        self.ending.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Ends it: what waits is sent within this time, or by the next agent.
    pub fn end(&mut self, patience: Duration) {
        self.close();
        let begun = Instant::now();
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && begun.elapsed() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        if let Some(thread) = self.thread.take()
            && thread.is_finished()
        {
            drop(thread.join());
        }
        match self.counts.counted().waiting() {
            0 => {}
            waiting => eprintln!("septwatch: output bus: {waiting} events stay in the spool"),
        }
    }
}
