//! Holds: taking them, having them ready, releasing them, and what comes back in spite of them.

use rustix::io::Errno;
use septwatch_common::{
    Violation,
    react::{BY_AGENT, Cordon, Held},
};
use serde::Serialize;

use super::{Actor, KernelSide, now};
use crate::{
    model::verdict::Verdict,
    policy::{
        audit::{By, Done, Event, EventKind, Step, Who},
        keeper::Kept,
        react::{ReactError, cordon, hold, signal, vmm::Vmm},
        reaction::Hold,
        subject::Subject,
    },
};

/// What a hold kept until it was released.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Released {
    /// Frames that were lent to the TD when it was held.
    pub frames: u64,
    /// Inodes that were pinned.
    pub inodes: usize,
    /// How often fallocate was refused.
    pub refused: u64,
}

impl Actor {
    /// The kernel side refuses fallocate, and the keeper has the descriptors: both, or it failed.
    pub(super) fn hold(
        &mut self,
        hold: Hold,
        asked: &Step,
        verdict: &Verdict,
        subject: &Subject,
        kernel: &mut dyn KernelSide,
        outcomes: &mut Vec<Step>,
    ) -> Result<String, ReactError> {
        let td = verdict.td.ok_or_else(|| ReactError::Refused("the verdict names no TD".to_owned()))?;
        let held = self.refuse_fallocate(td, hold, verdict, kernel);
        if let Ok(held) = &held
            && held.rule != BY_AGENT
            && self.told.get(&td) != Some(&held.since_ns)
        {
            outcomes.push(self.by_kernel(asked, held));
            self.told.insert(td, held.since_ns);
        }
        let lent = held.as_ref().map(|held| held.frames).or_else(|_| kernel.lent(td)).unwrap_or(0);
        let kept = self.pin(td, verdict, subject, lent);
        let pinned = kept.map(|kept| {
            format!("{} guest_memfd of process {} pinned, {lent} frames lent", kept.inodes.len(), kept.pid)
        });
        let refused = held.map(|held| format!("fallocate answers {}", errno_name(held.errno)));
        match (pinned, refused) {
            (Ok(pinned), Ok(refused)) => Ok(format!("{pinned}; {refused}")),
            (Ok(pinned), Err(error)) if self.degraded => {
                Ok(format!("{pinned}; fallocate is not refused: {error}"))
            }
            (Ok(pinned), Err(error)) => {
                Err(ReactError::NotSeen(format!("{pinned}; but fallocate is not refused: {error}")))
            }
            (Err(error), Ok(refused)) => {
                Err(ReactError::NotSeen(format!("{refused}; but no guest_memfd is pinned: {error}")))
            }
            (Err(pin), Err(refuse)) => Err(ReactError::NotSeen(format!("{pin}; and {refuse}"))),
        }
    }

    /// How the kernel side holds a TD, from now on or already.
    fn refuse_fallocate(
        &self,
        td: u32,
        hold: Hold,
        verdict: &Verdict,
        kernel: &mut dyn KernelSide,
    ) -> Result<Held, ReactError> {
        if let Some(held) = kernel.held(td)?.filter(|held| held.errno != 0) {
            return Ok(held);
        }
        let held = Held {
            since_ns: now(),
            frames: kernel.lent(td)?,
            errno: hold.errno.raw_os_error().unsigned_abs().into(),
            violation: verdict.violation as u32,
            rule: BY_AGENT,
            ..Held::default()
        };
        kernel.hold(td, held)?;
        Ok(held)
    }

    /// Writes down that the kernel side had held a TD before anybody came here.
    fn by_kernel(&self, asked: &Step, held: &Held) -> Step {
        let detail = format!(
            "fallocate answers {}, {} frames lent; refused {} times so far",
            errno_name(held.errno),
            held.frames,
            held.refused
        );
        let asked = Step { by: By::Kernel, asked_ns: held.since_ns, ..asked.clone() };
        let step = asked.with(Done::Done, detail, held.since_ns);
        let _ = self.shared.step(&step, true);
        step
    }

    /// Pins the guest_memfd of a TD, for a violation. Where its process is gone, what was pinned before counts.
    fn pin(&self, td: u32, verdict: &Verdict, subject: &Subject, frames: u64) -> Result<Kept, ReactError> {
        let kept = Kept {
            td,
            tdr: verdict.tdr,
            pid: subject.tgid.unwrap_or(0),
            violation: Some(verdict.violation.name().to_owned()),
            frames,
            since_ns: now(),
            inodes: Vec::new(),
        };
        let pinned = Vmm::find(&self.host, subject).and_then(|vmm| hold::pin(&vmm, self.host.demo));
        let none = || ReactError::NotSeen(format!("process {} has no guest_memfd open", kept.pid));
        let (pinned, why) = match pinned {
            Ok(pinned) if pinned.is_empty() => (pinned, Some(none())),
            Ok(pinned) => (pinned, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        // Without any of its own, the request only counts where something is kept.
        let taken = self.keeper.take(kept, &pinned);
        taken.map_err(|error| why.unwrap_or(ReactError::Keeper(error)))
    }

    /// Ends a VMM of which nothing is given back by that.
    pub(super) fn kill(&self, vmm: &Vmm, verdict: &Verdict) -> Result<String, ReactError> {
        let open = hold::pin(vmm, self.host.demo)?;
        let kept = self.keeper.list().map_err(ReactError::Keeper)?;
        let kept = kept.into_iter().filter(|kept| Some(kept.td) == verdict.td);
        let kept: Vec<_> = kept.flat_map(|kept| kept.inodes).collect();
        let loose = open.iter().filter(|pinned| !kept.contains(&pinned.inode)).count();
        if kept.is_empty() || loose != 0 {
            return Err(ReactError::Refused(format!(
                "not held: {} of the {} guest_memfd of process {} are not pinned, and SIGKILL would give back what a TD still maps",
                loose,
                open.len(),
                vmm.pid()
            )));
        }
        signal::kill(vmm)
    }

    /// Pins the guest_memfd of a TD before anything has failed. To be called again as its life goes on: a VMM may make more.
    /// Returns how many are pinned.
    ///
    /// # Errors
    /// Its process cannot be looked at, no keeper takes them, or the audit log cannot be written.
    pub fn ready(&mut self, subject: &Subject) -> Result<usize, ReactError> {
        let td = subject.td.ok_or_else(|| ReactError::Refused("no TD is named".to_owned()))?;
        let vmm = Vmm::find(&self.host, subject)?;
        let pinned = hold::pin(&vmm, self.host.demo)?;
        if pinned.is_empty() {
            return Ok(0);
        }
        self.shared.ready()?;
        let kept = Kept { td, pid: subject.tgid.unwrap_or(0), since_ns: now(), ..Kept::default() };
        let count = self.keeper.take(kept, &pinned).map_err(ReactError::Keeper)?.inodes.len();
        if self.ready.insert(td, count) != Some(count) {
            let detail = format!("{count} guest_memfd of process {} pinned", vmm.pid());
            let event = Event::new(EventKind::HoldReady, Some(&self.policy), Who::this(), detail);
            self.shared.event(Event { td: Some(td), ..event }, true)?;
        }
        Ok(count)
    }

    /// A TD has ended: what was pinned for it is let go, unless something has failed.
    ///
    /// # Errors
    /// The keeper does not answer, or the audit log cannot be written.
    pub fn gone(&mut self, td: u32) -> Result<(), ReactError> {
        self.ready.remove(&td);
        let dropped = self.keeper.release(td, true).map_err(ReactError::Keeper)?;
        if dropped.is_empty() {
            return Ok(());
        }
        let event =
            Event::new(EventKind::ReadyDropped, Some(&self.policy), Who::this(), "it ended in good order");
        Ok(self.shared.event(Event { td: Some(td), ..event }, false)?)
    }

    /// What the keeper has: also what an agent before this one had kept.
    ///
    /// # Errors
    /// It does not answer.
    pub fn kept(&self) -> Result<Vec<Kept>, ReactError> {
        self.keeper.list().map_err(ReactError::Keeper)
    }

    /// Ends the hold of a TD: its frames go back to the allocator as soon as nobody else has its guest_memfd open.
    ///
    /// # Errors
    /// It is not held, the kernel side or the keeper cannot be told, or the audit log cannot be written.
    pub fn release(
        &mut self,
        td: u32,
        who: Who,
        kernel: &mut dyn KernelSide,
    ) -> Result<Released, ReactError> {
        let held = kernel.held(td)?.filter(|held| held.errno != 0);
        let kept = self.kept()?;
        let kept: Vec<_> = kept.iter().filter(|kept| kept.td == td).collect();
        if held.is_none() && kept.is_empty() {
            return Err(ReactError::Refused(format!("TD {td} is not held")));
        }
        let released = Released {
            frames: kept
                .iter()
                .map(|kept| kept.frames)
                .chain(held.map(|held| held.frames))
                .max()
                .unwrap_or(0),
            inodes: kept.iter().map(|kept| kept.inodes.len()).sum(),
            refused: held.map_or(0, |held| held.refused),
        };
        let detail = format!("{} guest_memfd, fallocate refused {} times", released.inodes, released.refused);
        let event = Event::new(EventKind::HoldReleased, Some(&self.policy), who, detail);
        self.shared.event(Event { td: Some(td), frames: Some(released.frames), ..event }, true)?;
        if held.is_some() {
            kernel.release(td)?;
        }
        self.keeper.release(td, false).map_err(ReactError::Keeper)?;
        self.told.remove(&td);
        self.ready.remove(&td);
        self.in_spite.remove(&td);
        Ok(released)
    }

    /// Ends the cordon of the host.
    ///
    /// # Errors
    /// The kernel side cannot be told, or the audit log cannot be written.
    pub fn uncordon(&mut self, who: Who, kernel: &mut dyn KernelSide) -> Result<(), ReactError> {
        kernel.cordon(Cordon::default())?;
        Ok(self.event(EventKind::Uncordoned, who, "")?)
    }

    /// A frame that a held TD maps was released: it was in flight when the hold began, in the call whose own zap failed.
    pub(super) fn in_spite_of_hold(&mut self, verdict: &Verdict, kernel: &mut dyn KernelSide) {
        use Violation::{FreedUnflushed, FreedWhileBlocked, FreedWhileMapped, FreedWhileOwned};
        let freed = [FreedWhileMapped, FreedWhileBlocked, FreedUnflushed, FreedWhileOwned];
        let Some(td) = verdict.td.filter(|_| freed.contains(&verdict.violation)) else { return };
        let Ok(Some(held)) = kernel.held(td) else { return };
        if held.errno == 0 || verdict.time_ns < held.since_ns {
            return;
        }
        let count = self.in_spite.entry(td).or_default();
        *count += verdict.frames;
        let after = verdict.time_ns - held.since_ns;
        let detail = format!("{after} ns after the hold began; {count} frames of this TD so far");
        let _ = self.shared.event(Event::released_in_spite(&self.policy, verdict, detail), true);
    }
}

/// An errno of the kernel side in words.
fn errno_name(errno: u64) -> String {
    let errno = i32::try_from(errno).map(Errno::from_raw_os_error);
    errno.map_or_else(|_| "an unknown errno".to_owned(), cordon::name)
}
