//! A policy at work: what arrives goes by here, and what is decided about it is carried out.

mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use septwatch_common::{
    Life,
    react::{HOLD, PANIC, QuickRule},
};
use serde_json::Value;

use super::{Policing, Prepared, needs, side::Side};
use crate::{
    confine::{self, Kept},
    hooks::{lock::RUN, means::Means, reactions::Needs},
    model::verdict::Verdict,
    policy::{
        actor::{Actor, Released},
        audit::{Audit, Step, Who},
        control::{Asked, Control, Request},
        engine::{Armed, Engine},
        explain::Gap,
        file::Policy,
        latency::Latencies,
        quick,
        react::host::Host,
        subject::Subject,
    },
    recording::header::Clock,
    source::{event::Event, session::Session},
};

/// How often guest_memfd that are to be pinned are looked for, and limits are handed to the kernel side.
const TEND: Duration = Duration::from_secs(1);

/// TDs that are remembered beyond those that the model knows.
const SUBJECTS: usize = 8192;

/// A policy at work.
pub struct Guard {
    engine: Engine,
    actor: Actor,
    control: Option<Control>,
    from: String,
    flags: Policing,
    means: Means,
    gaps: Vec<Gap>,
    attached: Needs,
    /// What this process has kept, if it gave capabilities up.
    kept: Option<Kept>,
    subjects: BTreeMap<u32, Subject>,
    /// What the kernel side follows.
    following: Vec<QuickRule>,
    /// The kernel's log has it that the kernel side may bring the host down.
    announced: bool,
    /// TDs of which it was said that they could not be pinned.
    not_pinned: BTreeSet<u32>,
    /// What arrived and was not reacted to yet.
    seen: Vec<Seen>,
    tended: Instant,
}

/// Something that arrived and that a policy wants to know of.
enum Seen {
    /// A TD reached this stage.
    Life(u32, Life),
    /// A violation.
    Violation(Box<Verdict>),
}

impl Seen {
    /// What of an event a policy wants to know.
    fn of(event: &Event, verdict: Option<&Verdict>) -> Option<Self> {
        match (event, verdict) {
            (_, Some(verdict)) => Some(Self::Violation(Box::new(verdict.clone()))),
            (Event::Life(life), None) => Some(Self::Life(life.id, Life::from_number(life.life)?)),
            _ => None,
        }
    }
}

impl Guard {
    /// Begins to follow a policy; `attached` are the programs of reactions that are. Inside of a runtime where others may
    /// ask for things by the control socket.
    ///
    /// # Errors
    /// The audit log cannot be written, or the kernel side not be told.
    pub fn begin(
        prepared: Prepared,
        attached: Needs,
        host: Host,
        control: bool,
        session: &mut Session,
    ) -> Result<Self> {
        let Prepared { policy, from, means, gaps, flags } = prepared;
        let audit = Audit::open(&flags.audit)?;
        let actor = Actor::new(&policy.name, flags.arm, audit, host)?.degraded(flags.allow_degraded);
        let control = control.then(|| Control::open(RUN.as_ref())).transpose();
        let mut guard = Self {
            engine: Engine::new(policy),
            actor,
            control: control.context("the control socket in /run/septwatch")?,
            from,
            flags,
            means,
            gaps,
            attached,
            kept: None,
            subjects: BTreeMap::new(),
            following: Vec::new(),
            announced: false,
            not_pinned: BTreeSet::new(),
            seen: Vec::new(),
            tended: Instant::now(),
        };
        guard.meet_all(session)?;
        guard.instruct(session, true)?;
        Ok(guard)
    }

    /// This process has given up what the policy does not need: one that needs more cannot be read later.
    pub fn confined(self, kept: Option<Kept>) -> Self {
        Self { kept, ..self }
    }

    /// Takes note of what arrived. What is to be done about it is done by [`Self::react`].
    pub fn saw(&mut self, event: &Event, verdict: Option<&Verdict>) {
        self.seen.extend(Seen::of(event, verdict));
    }

    /// Reacts to what was seen, and hands each step to `told`.
    ///
    /// # Errors
    /// The kernel side cannot be read or written.
    pub fn react(&mut self, session: &mut Session, mut told: impl FnMut(&Step) -> Result<()>) -> Result<()> {
        for seen in std::mem::take(&mut self.seen) {
            match seen {
                Seen::Life(td, Life::Gone) => self.part(td, session)?,
                Seen::Life(td, _) => self.meet(td, session)?,
                Seen::Violation(verdict) => {
                    for step in self.violation(&verdict, session)? {
                        told(&step)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn violation(&mut self, verdict: &Verdict, session: &mut Session) -> Result<Vec<Step>> {
        let subject = match verdict.td {
            Some(td) => self.subject(td, session),
            None => Subject::default(),
        };
        let armed = Armed::Agent(self.actor.is_armed());
        let decisions = self.engine.decide(verdict, &subject, armed);
        let side = &mut Side::of(session, self.attached);
        let steps = self.actor.carry_out(&decisions, verdict, &subject, side);
        self.instruct(session, false)?;
        Ok(steps)
    }

    /// What is known of a TD; what its process says is read once.
    fn subject(&mut self, td: u32, session: &Session) -> Subject {
        if let Some(subject) = self.subjects.get(&td) {
            return subject.clone();
        }
        let Some(state) = session.model().tds.get(&td) else {
            return Subject { td: Some(td), ..Subject::default() };
        };
        let subject = Subject::of_process(td, state.tgid, state.begun_ns);
        self.subjects.insert(td, subject.clone());
        while self.subjects.len() > SUBJECTS {
            self.subjects.pop_first();
        }
        subject
    }

    /// A TD is there: rules may choose it, and its guest_memfd may have to be pinned.
    fn meet(&mut self, td: u32, session: &mut Session) -> Result<()> {
        let subject = self.subject(td, session);
        let policy = Arc::clone(self.engine.policy());
        let chosen = quick::chosen(&policy, &subject);
        session.kernel().reactions().choose(td, chosen)?;
        self.pin(&subject);
        Ok(())
    }

    fn meet_all(&mut self, session: &mut Session) -> Result<()> {
        living(session).into_iter().try_for_each(|td| self.meet(td, session))
    }

    /// Pins the guest_memfd of a TD, if the policy wants them ready.
    fn pin(&mut self, subject: &Subject) {
        if self.actor.is_armed()
            && quick::ready(self.engine.policy(), subject)
            && let Err(error) = self.actor.ready(subject)
        {
            // Once for a TD: it is tried again and again.
            let td = subject.td.unwrap_or(0);
            if self.not_pinned.insert(td) {
                eprintln!("septwatch: the guest_memfd of TD {td} are not pinned: {error}");
            }
        }
    }

    fn part(&mut self, td: u32, session: &mut Session) -> Result<()> {
        self.engine.forget(td);
        self.not_pinned.remove(&td);
        session.kernel().reactions().forget(td)?;
        if let Err(error) = self.actor.gone(td) {
            eprintln!("septwatch: what was pinned for TD {td}: {error}");
        }
        Ok(())
    }

    /// Hands the kernel side what it is to follow by itself, if that has changed, or `anyway`.
    fn instruct(&mut self, session: &mut Session, anyway: bool) -> Result<()> {
        let armed = self.actor.is_armed();
        let now_ns = Clock::now().monotonic_ns;
        let mut rules = match armed {
            true => quick::compile(self.engine.policy(), &self.engine, now_ns),
            false => Vec::new(),
        };
        // What no program here carries out is not said to be done.
        for rule in &mut rules {
            rule.does &= if self.attached.hold { u64::MAX } else { !HOLD };
            rule.does &= if self.attached.panic { u64::MAX } else { !PANIC };
        }
        if anyway || rules != self.following {
            let holds = !session.kernel().reactions().all_held()?.is_empty();
            session.kernel().follow(&rules, holds)?;
            self.following = rules;
            let panics = self.following.iter().any(|rule| rule.does & PANIC != 0);
            if panics && !self.announced {
                self.actor.announce_panics();
            }
            self.announced = panics;
        }
        Ok(())
    }

    /// What is to be done from time to time.
    ///
    /// # Errors
    /// The kernel side cannot be told.
    pub fn tend(&mut self, session: &mut Session) -> Result<()> {
        if self.tended.elapsed() < TEND {
            return Ok(());
        }
        self.tended = Instant::now();
        // A VMM may have made another guest_memfd.
        for td in living(session) {
            let subject = self.subject(td, session);
            self.pin(&subject);
        }
        // Limits fill up again.
        self.instruct(session, false)
    }

    /// The next request of somebody else; never where there is no control socket.
    pub async fn asked(&mut self) -> Asked {
        match &mut self.control {
            Some(control) => control.next().await,
            None => std::future::pending().await,
        }
    }

    /// Does what was asked for, and answers.
    pub fn answer(&mut self, asked: Asked, session: &mut Session) {
        let answer = self.request(&asked.request, asked.who, session);
        asked.answer(answer);
    }

    /// Does what somebody asks for.
    ///
    /// # Errors
    /// In words: why not.
    pub fn request(&mut self, request: &Request, who: Who, session: &mut Session) -> Result<Value, String> {
        let side = &mut Side::of(session, self.attached);
        match request {
            Request::Status => self.status(session),
            Request::Arm { policy } => {
                let name = &self.engine.policy().name;
                if !self.engine.policy().armed {
                    return Err(format!("the policy {name} is a dry run: it does not say `armed = true`"));
                }
                if policy != name {
                    return Err(format!("the policy is {name} by now"));
                }
                self.arm(true, who, session).map(Value::from)
            }
            Request::Disarm => self.arm(false, who, session).map(Value::from),
            Request::Release { td } => {
                let released = self.actor.release(*td, who, side).map_err(|error| error.to_string())?;
                serde_json::to_value(released).map_err(|error| error.to_string())
            }
            Request::Uncordon => {
                self.actor.uncordon(who, side).map(Value::from).map_err(|error| error.to_string())
            }
        }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        self.engine.policy()
    }

    /// Whether reactions that act are taken.
    pub fn is_armed(&self) -> bool {
        self.engine.policy().armed && self.actor.is_armed()
    }

    /// What of it this host cannot carry out.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// How long reactions took.
    pub fn latencies(&self) -> Latencies {
        self.actor.latencies()
    }

    fn arm(&mut self, armed: bool, who: Who, session: &mut Session) -> Result<(), String> {
        self.actor.arm(armed, who).map_err(|error| error.to_string())?;
        self.instruct(session, true).map_err(|error| format!("{error:#}"))
    }

    /// Reads the policy again: all of it, or the one before stays. What came of it is in the audit log.
    ///
    /// # Errors
    /// The kernel side cannot be told.
    pub fn reload(&mut self, session: &mut Session) -> Result<()> {
        let who = Who::this();
        let read = Prepared::read(&self.from, self.means.clone(), &self.flags);
        let read = read.map_err(|error| format!("{error:#}")).and_then(|prepared| {
            let wanted = needs(&prepared.policy, &self.means);
            let lacks = self.kept.map(|kept| kept.lacks(&confine::needed(Some(&prepared.policy))));
            if let Some(need) = lacks.iter().flatten().next() {
                let (name, feature) = (need.name, need.feature);
                return Err(format!("{feature} needs {name}, which was given up at the start: start again"));
            }
            match self.attached.cover(wanted) {
                true => Ok(prepared),
                false => Err("it needs programs that were not attached at the start: start again".to_owned()),
            }
        });
        match read {
            Err(why) => {
                eprintln!("septwatch: the policy is not read again, the one before stays: {why}");
                self.actor.refused_reload(&why, who)?;
            }
            Ok(prepared) => {
                self.actor.reloaded(&prepared.policy.name, who)?;
                self.engine = self.engine.replaced_by(prepared.policy);
                self.gaps = prepared.gaps;
                self.meet_all(session)?;
                self.instruct(session, true)?;
                eprintln!("septwatch: {}", self.told());
            }
        }
        Ok(())
    }

    /// Ends the hold of a TD.
    ///
    /// # Errors
    /// It is not held, or cannot be released.
    pub fn release(&mut self, td: u32, session: &mut Session) -> Result<Released> {
        let side = &mut Side::of(session, self.attached);
        Ok(self.actor.release(td, Who::this(), side)?)
    }

    /// Ends. True: something is held or refused, and the programs that do it must stay.
    ///
    /// # Errors
    /// The audit log cannot be written.
    pub fn end(&mut self, session: &mut Session) -> Result<bool> {
        self.actor.stop()?;
        let reactions = session.kernel().reactions();
        let cordoned = reactions.cordoning()?.errno != 0;
        Ok(cordoned || !reactions.in_force()?.is_empty())
    }
}

/// The TDs that are not gone.
fn living(session: &Session) -> Vec<u32> {
    let is_there = |life: Life| life != Life::None && life != Life::Gone;
    let living = session.model().tds.iter().filter(|(_, state)| is_there(state.life));
    living.map(|(td, _)| *td).collect()
}
