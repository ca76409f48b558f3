//! Counts the frames of the kernel's ledger, on a thread of its own: of a large host that takes its time, which the
//! ring buffers do not have.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    model::census::Census,
    recording::header::Clock,
    source::kernel::{Kernel, KernelError},
};

/// How often they are counted.
const PAUSE: Duration = Duration::from_secs(1);

/// How much longer than the counting the pause is at least: what the thread takes of a CPU is at most 1 in so many.
const REST: u32 = 200;

/// Counts frames, for as long as it is kept.
pub struct Counting {
    latest: Arc<Mutex<Option<Arc<Census>>>>,
    ask: Sender<Option<u16>>,
    wanted: Option<u16>,
}

impl Counting {
    /// Begins.
    ///
    /// # Errors
    /// No more descriptors, or threads.
    pub fn begin(kernel: &Kernel) -> Result<Self, KernelError> {
        let reader = kernel.ledger_reader()?;
        let latest = Arc::new(Mutex::new(None));
        let (ask, asked) = channel();
        let counted = Arc::clone(&latest);
        // Without the thread, nothing is counted, and all else goes on.
        let _ = thread::Builder::new().name("septwatch-count".to_owned()).spawn(move || {
            let mut wanted = None;
            loop {
                let begun = Instant::now();
                let census = Census::of(reader.open_lines(), wanted, Clock::now().monotonic_ns);
                *counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(census));
                match asked.recv_timeout(PAUSE.max(begun.elapsed() * REST)) {
                    Ok(other) => wanted = other,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Ok(Self { latest, ask, wanted: None })
    }

    /// Of the TD with this index a map is made from now on.
    pub fn want(&mut self, index: Option<u16>) {
        if self.wanted != index {
            self.wanted = index;
            // A thread that could not be started counts nothing.
            let _ = self.ask.send(index);
        }
    }

    /// Whether the map that is wanted was made.
    pub fn is_answered(&self) -> bool {
        let latest = self.latest();
        latest.is_some_and(|census| census.wanted == self.wanted)
    }

    /// What was counted last.
    pub fn latest(&self) -> Option<Arc<Census>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
