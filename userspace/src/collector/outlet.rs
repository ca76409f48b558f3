//! The way from detection to an output: a bounded queue that nobody ever waits at, and exact counts of what went where.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::message::Message;

/// What became of what an output was given: offered = delivered + lost + those that wait.
#[derive(Debug, Default)]
pub struct Counts {
    offered: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
    trouble: Mutex<Option<String>>,
}

/// [`Counts`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages that the output was given.
    pub offered: u64,
    /// Of them, those that it passed on.
    pub delivered: u64,
    /// Of them, those that it will never pass on.
    pub lost: u64,
    /// Why it last failed to; none since it last succeeded.
    pub trouble: Option<String>,
}

impl Counted {
    /// Messages that wait for their turn.
    pub const fn waiting(&self) -> u64 {
        self.offered.saturating_sub(self.delivered).saturating_sub(self.lost)
    }
}

impl Counts {
    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        // Offered last: what is counted as delivered was offered before.
        let (delivered, lost) = (self.delivered.load(Ordering::Acquire), self.lost.load(Ordering::Acquire));
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Counted { offered: self.offered.load(Ordering::Acquire), delivered, lost, trouble }
    }

    pub(super) fn offered(&self, messages: u64) {
        self.offered.fetch_add(messages, Ordering::Release);
    }

    pub(super) fn delivered(&self) {
        self.delivered.fetch_add(1, Ordering::Release);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One more is lost; true if that is news.
    pub(super) fn lost(&self, why: &str) -> bool {
        self.lost.fetch_add(1, Ordering::Release);
        self.trouble(why)
    }

    /// Nothing can be passed on now; true if that is news.
    pub(super) fn trouble(&self, why: &str) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = trouble.is_none();
        *trouble = Some(why.to_owned());
        is_news
    }
}

/// Where an output's messages go in the end.
pub trait Peer: Send {
    /// Passes a message on; `lost` messages were lost since the one before. It may take its time: nobody but this output
    /// waits.
    ///
    /// # Errors
    /// It cannot: the message is lost.
    fn deliver(&mut self, message: &Message, lost: u64) -> io::Result<()>;
}

/// An output at work, on a thread of its own.
#[derive(Debug)]
pub struct Outlet {
    name: &'static str,
    counts: Arc<Counts>,
    sender: Option<SyncSender<Arc<Message>>>,
    thread: Option<JoinHandle<()>>,
}

impl Outlet {
    /// Begins an output with room for so many messages that wait.
    ///
    /// # Errors
    /// No more threads.
    pub fn begin(name: &'static str, room: usize, peer: impl Peer + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(room);
        let counts = Arc::new(Counts::default());
        let thread = thread::Builder::new().name(format!("septwatch-{name}")).spawn({
            let counts = Arc::clone(&counts);
            move || deliver(name, &receiver, &counts, peer)
        })?;
        Ok(Self { name, counts, sender: Some(sender), thread: Some(thread) })
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
        self.counts.offered(1);
        let refused = match self.sender.as_ref().map(|sender| sender.try_send(Arc::clone(message))) {
            Some(Ok(())) => return,
            Some(Err(TrySendError::Full(_))) => "its queue is full",
            Some(Err(TrySendError::Disconnected(_))) | None => "it has ended",
        };
        if self.counts.lost(refused) {
            eprintln!("septwatch: output {}: {refused}: events are lost there, and counted", self.name);
        }
    }

    /// Ends it: what waits is passed on within this time, or lost.
    pub fn end(&mut self, patience: Duration) {
        drop(self.sender.take());
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

fn deliver(name: &str, receiver: &Receiver<Arc<Message>>, counts: &Counts, mut peer: impl Peer) {
    let mut told = 0;
    while let Ok(message) = receiver.recv() {
        let lost = counts.lost.load(Ordering::Acquire);
        match peer.deliver(&message, lost - told) {
            Ok(()) => {
                told = lost;
                counts.delivered();
            }
            Err(error) => {
                if counts.lost(&error.to_string()) {
                    eprintln!("septwatch: output {name}: {error}: events are lost there, and counted");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::sync::mpsc;

    use super::*;
    use crate::collector::message::tests::message;

    struct Slow(mpsc::Receiver<bool>);

    impl Peer for Slow {
        fn deliver(&mut self, _: &Message, _: u64) -> io::Result<()> {
            match self.0.recv() {
                Ok(true) => Ok(()),
                _ => Err(io::Error::other("refused")),
            }
        }
    }

    #[test]
    fn nobody_waits_and_everything_is_counted() {
        let (go, gate) = mpsc::channel();
        let mut outlet = Outlet::begin("slow", 2, Slow(gate)).unwrap();
        let begun = Instant::now();
        for _ in 0..10_000 {
            outlet.offer(&message(1));
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        let counted = outlet.counts().counted();
        assert_eq!((counted.offered, counted.delivered), (10_000, 0));
        // Two wait in the queue, and at most one in the peer's hands.
        assert!((2..=3).contains(&counted.waiting()), "{counted:?}");
        assert_eq!(counted.trouble.as_deref(), Some("its queue is full"));
        let waiting = counted.waiting();
        go.send(true).unwrap();
        (1..waiting).for_each(|_| go.send(false).unwrap());
        outlet.end(Duration::from_secs(20));
        let after = outlet.counts().counted();
        assert_eq!((after.delivered, after.waiting()), (1, 0));
        assert_eq!(after.lost, 9_999);
        assert_eq!(after.trouble.as_deref(), Some("refused"));
    }

    #[test]
    fn a_peer_that_hangs_does_not_hold_up_the_end() {
        let (go, gate) = mpsc::channel::<bool>();
        let mut outlet = Outlet::begin("hung", 8, Slow(gate)).unwrap();
        outlet.offer(&message(1));
        let begun = Instant::now();
        outlet.end(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(outlet.counts().counted().waiting(), 1);
        drop(go);
    }
}
