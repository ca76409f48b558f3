//! Work on a thread of its own, which is asked how it stands, and ends with who began it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crate::locked::lock;

/// What runs, and how it stands.
pub(super) struct Beside<S> {
    state: Arc<Mutex<S>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Default + Send + 'static> Beside<S> {
    /// Begins. The work looks at the flag: it is to end.
    pub(super) fn begin(work: impl FnOnce(&Mutex<S>, &AtomicBool) + Send + 'static) -> Self {
        let (state, stop) = (Arc::<Mutex<S>>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            move || work(&state, &stop)
        });
        Self { state, stop, thread: Some(thread) }
    }

    /// How it stands.
    pub(super) fn state(&self) -> MutexGuard<'_, S> {
        lock(&self.state)
    }
}

impl<S> Drop for Beside<S> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A step at most; that it panicked says the thread itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
