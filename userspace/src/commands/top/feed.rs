//! Between a source, on its thread, and the screen.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
    mpsc::{Receiver, Sender, channel},
};

use tokio::sync::Notify;

use super::{screen, stderr::Lines};
use crate::view::top::scene::{Ask, Scene};

/// What both sides share.
pub struct Feed {
    latest: Mutex<Arc<Scene>>,
    asks: Mutex<Sender<Ask>>,
    ended: AtomicBool,
    quit: Arc<Notify>,
    quitting: AtomicBool,
    /// What was said on standard error, to be shown.
    lines: Option<Lines>,
}

impl Feed {
    /// Begins with this scene. The other end of what is asked goes to the source.
    pub fn new(scene: Scene, lines: Option<Lines>) -> (Arc<Self>, Receiver<Ask>) {
        let (asks, asked) = channel();
        let feed = Self {
            latest: Mutex::new(Arc::new(scene)),
            asks: Mutex::new(asks),
            ended: AtomicBool::new(false),
            quit: Arc::default(),
            quitting: AtomicBool::new(false),
            lines,
        };
        (Arc::new(feed), asked)
    }

    /// The newest scene.
    pub fn latest(&self) -> Arc<Scene> {
        Arc::clone(&self.latest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// There is a newer one.
    pub fn publish(&self, scene: Arc<Scene>) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = scene;
    }

    /// Asks the source for something. One that has ended does not answer.
    pub fn ask(&self, ask: Ask) {
        let _ = self.asks.lock().unwrap_or_else(PoisonError::into_inner).send(ask);
    }

    /// The source has ended: nothing new will come.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether the source has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The source is to end.
    pub fn quit(&self) {
        self.quitting.store(true, Ordering::Release);
        self.quit.notify_one();
    }

    /// Whether the source is to end.
    pub fn is_quitting(&self) -> bool {
        self.quitting.load(Ordering::Acquire)
    }

    /// Is told when the source is to end.
    pub fn told(&self) -> Arc<Notify> {
        Arc::clone(&self.quit)
    }

    /// What was said on standard error since this was asked last.
    pub fn take_lines(&self) -> Vec<String> {
        self.lines.as_ref().map(Lines::take).unwrap_or_default()
    }
}

impl screen::Feed for Feed {
    fn latest(&self) -> Arc<Scene> {
        self.latest()
    }

    fn ask(&self, ask: Ask) {
        self.ask(ask);
    }

    fn ended(&self) -> bool {
        self.has_ended()
    }
}
