//! What systemd is told, where it started the agent: that it is ready, that it lives, how things stand. sd_notify(3)

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Tells systemd; nobody, where it did not start the agent.
#[derive(Debug)]
pub struct Systemd {
    /// How often it wants to hear that the agent lives.
    every: Option<Duration>,
    told: Instant,
    status: String,
}

impl Systemd {
    /// As the environment has it.
    pub fn here() -> Self {
        // Half of it: a single word may be late.
        let every = sd_notify::watchdog_enabled().map(|timeout| timeout / 2);
        Self { every, told: Instant::now(), status: String::new() }
    }

    /// The agent does what it is for.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The configuration is read again; [`Self::ready`] says that it was.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    /// The agent ends.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// The thread that watches comes by here: it lives.
    pub fn lives(&mut self) {
        if self.every.is_some_and(|every| self.told.elapsed() >= every) {
            self.told = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// How things stand, for `systemctl status`.
    pub fn status(&mut self, status: String) {
        if self.status != status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }
}

/// That systemd does not listen is no reason to stop watching.
fn tell(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}
