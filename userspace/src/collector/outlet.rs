//! The way from detection to an output: a bounded queue that nobody ever waits at, and exact counts of what went where.

mod counts;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub use counts::{Counted, Counts};

use super::{
    message::Message,
    pause::{BackOff, Ending},
};

/// Where an output's messages go in the end.
pub trait Peer: Send {
    /// Passes a message on; `lost` messages were lost since the one before. It may take its time: nobody but this output
    /// waits.
    ///
    /// # Errors
    /// It cannot: the message is lost.
    fn deliver(&mut self, message: &Message, lost: u64) -> io::Result<()>;
}

/// Why messages were not passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// So many of them are lost, the others were passed on.
    Lost {
        /// How many.
        messages: usize,
        /// Why.
        why: String,
    },
    /// None was, and all of them may be later: after so long, where the other side says it.
    Later {
        /// Why not now.
        why: String,
        /// When to try again.
        after: Option<Duration>,
    },
}

/// Where messages go that are passed on several at a time.
pub trait Batches: Send {
    /// Messages that are passed on together at most.
    const MOST: usize;
    /// How long the first of them waits for others.
    const WAIT: Duration;

    /// Whether a message is any of its business. What is not is not offered, and not counted.
    fn takes(_: &Message) -> bool {
        true
    }

    /// Passes messages on; `lost` messages were lost since those before. It may take its time: nobody but this output waits.
    ///
    /// # Errors
    /// It cannot, or not all of them.
    fn deliver(&mut self, messages: &[Arc<Message>], lost: u64) -> Result<(), Undelivered>;
}

impl<P: Peer> Batches for P {
    const MOST: usize = 1;
    const WAIT: Duration = Duration::ZERO;

    fn deliver(&mut self, messages: &[Arc<Message>], lost: u64) -> Result<(), Undelivered> {
        let mut each = messages.iter().map(|message| Peer::deliver(self, message, lost));
        each.try_for_each(|done| {
            done.map_err(|error| Undelivered::Lost { messages: 1, why: error.to_string() })
        })
    }
}

/// An output at work, on a thread of its own.
#[derive(Debug)]
pub struct Outlet {
    name: &'static str,
    counts: Arc<Counts>,
    takes: fn(&Message) -> bool,
    ending: Arc<Ending>,
    sender: Option<SyncSender<Arc<Message>>>,
    thread: Option<JoinHandle<()>>,
}

impl Outlet {
    /// Begins an output with room for so many messages that wait.
    ///
    /// # Errors
    /// No more threads.
    pub fn begin<B: Batches + 'static>(name: &'static str, room: usize, peer: B) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(room);
        let (counts, ending) = (Arc::new(Counts::default()), Arc::new(Ending::default()));
        let work = Work { name, receiver, counts: Arc::clone(&counts), ending: Arc::clone(&ending), peer };
        let thread =
            thread::Builder::new().name(format!("septwatch-{name}")).spawn(move || work.deliver())?;
        Ok(Self { name, counts, takes: B::takes, ending, sender: Some(sender), thread: Some(thread) })
    }

    /// Begins one that is given no messages, but reports how things stand every so often, and once more at its end. Each
    /// report is counted; one that fails is not tried again, for the next tells as much.
    ///
    /// # Errors
    /// No more threads.
    pub fn every(
        name: &'static str,
        interval: Duration,
        mut report: impl FnMut() -> Result<(), Undelivered> + Send + 'static,
    ) -> io::Result<Self> {
        let (counts, ending) = (Arc::new(Counts::default()), Arc::new(Ending::default()));
        let work = {
            let (counts, ending) = (Arc::clone(&counts), Arc::clone(&ending));
            move || {
                let mut wait = interval;
                loop {
                    let ends = ending.wait(wait);
                    wait = interval;
                    counts.offered(1);
                    match report() {
                        Ok(()) => counts.delivered(1),
                        Err(Undelivered::Later { why, after }) => {
                            wait = interval.max(BackOff::default().next(after));
                            failed(name, &counts, 1, &why);
                        }
                        Err(Undelivered::Lost { why, .. }) => failed(name, &counts, 1, &why),
                    }
                    if ends {
                        break;
                    }
                }
            }
        };
        let thread = thread::Builder::new().name(format!("septwatch-{name}")).spawn(work)?;
        Ok(Self { name, counts, takes: |_| false, ending, sender: None, thread: Some(thread) })
    }

    /// Its name, in metrics.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What became of its messages.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Gives it a message, and never waits.
    pub fn offer(&self, message: &Arc<Message>) {
        if !(self.takes)(message) {
            return;
        }
        self.counts.offered(1);
        let refused = match self.sender.as_ref().map(|sender| sender.try_send(Arc::clone(message))) {
            Some(Ok(())) => return,
            Some(Err(TrySendError::Full(_))) => "its queue is full",
            Some(Err(TrySendError::Disconnected(_))) | None => "it has ended",
        };
        failed(self.name, &self.counts, 1, refused);
    }

    /// There will be no further message: what waits is passed on, and tried only once more where that fails.
    pub fn close(&mut self) {
        drop(self.sender.take());
        self.ending.tell();
    }

    /// Ends it: what waits is passed on within this time, or lost.
    pub fn end(&mut self, patience: Duration) {
        self.close();
        let begun = Instant::now();
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && begun.elapsed() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        match self.thread.take() {
            // It says itself what it lost.
            Some(thread) if thread.is_finished() => drop(thread.join()),
            Some(_) => {
                let waiting = self.counts.counted().waiting();
                eprintln!("septwatch: output {}: {waiting} events were not passed on", self.name);
            }
            None => {}
        }
    }
}

/// So many are lost: that is counted, and told where it is news.
fn failed(name: &str, counts: &Counts, messages: u64, why: &str) {
    if counts.lost(messages, why) {
        eprintln!("septwatch: output {name}: {why}: events are lost there, and counted");
    }
}

/// What an output's thread does.
struct Work<B> {
    name: &'static str,
    receiver: Receiver<Arc<Message>>,
    counts: Arc<Counts>,
    ending: Arc<Ending>,
    peer: B,
}

impl<B: Batches> Work<B> {
    fn deliver(mut self) {
        let mut told = 0;
        while let Ok(first) = self.receiver.recv() {
            let batch = self.batch(first);
            let mut pause = BackOff::default();
            while let Err((why, after)) = self.pass(&batch, &mut told) {
                if self.counts.troubled(&why) {
                    eprintln!("septwatch: output {}: {why}: it is tried again", self.name);
                }
                self.ending.wait(pause.next(after));
            }
        }
    }

    /// Those that are passed on together with this one.
    fn batch(&self, first: Arc<Message>) -> Vec<Arc<Message>> {
        let mut batch = vec![first];
        let begun = Instant::now();
        while batch.len() < B::MOST
            && let Ok(next) = self.receiver.recv_timeout(B::WAIT.saturating_sub(begun.elapsed()))
        {
            batch.push(next);
        }
        batch
    }

    /// Passes messages on, or loses them; or says why they must be tried again, and when.
    fn pass(&mut self, batch: &[Arc<Message>], told: &mut u64) -> Result<(), (String, Option<Duration>)> {
        let all = batch.len();
        let lost = self.counts.lost_so_far();
        // Nobody will be there for another try.
        let is_last = self.ending.is_told();
        let (messages, why) = match self.peer.deliver(batch, lost - *told) {
            Ok(()) => {
                *told = lost;
                self.counts.delivered(all as u64);
                self.counts.took(batch);
                return Ok(());
            }
            Err(Undelivered::Later { why, after }) if !is_last => return Err((why, after)),
            Err(Undelivered::Later { why, .. }) => (all, why),
            Err(Undelivered::Lost { messages, why }) => (messages.min(all), why),
        };
        self.counts.delivered_beside_lost((all - messages) as u64);
        if messages < all {
            *told = lost;
        }
        failed(self.name, &self.counts, messages as u64, &why);
        Ok(())
    }
}
