//! The audit log and the latencies, which the threads that tell others write too.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    model::verdict::Verdict,
    policy::{
        audit::{Audit, AuditError, Event, Line, Step},
        latency::Latencies,
        subject::Subject,
    },
};

/// What the threads that tell others also write.
#[derive(Debug)]
pub(super) struct Shared {
    audit: Mutex<Audit>,
    latencies: Mutex<Latencies>,
    /// It was said that the log cannot be written.
    complained: AtomicBool,
}

impl Shared {
    pub(super) fn new(audit: Audit) -> Self {
        Self { audit: Mutex::new(audit), latencies: Mutex::default(), complained: AtomicBool::new(false) }
    }

    pub(super) fn latencies(&self) -> Latencies {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn audit(&self) -> MutexGuard<'_, Audit> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ready(&self) -> Result<(), AuditError> {
        let ready = self.audit().ready();
        self.complain(ready)
    }

    pub(super) fn step(&self, step: &Step, sync: bool) -> Result<(), AuditError> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).step(step);
        let written = self.audit().write(&Line::Step(Box::new(step.clone())), sync);
        self.complain(written)
    }

    pub(super) fn event(&self, event: Event, sync: bool) -> Result<(), AuditError> {
        let written = self.audit().write(&Line::Event(event), sync);
        self.complain(written)
    }

    /// Says once that the log cannot be written, and once that it can again.
    fn complain(&self, result: Result<(), AuditError>) -> Result<(), AuditError> {
        match &result {
            Err(error) if !self.complained.swap(true, Ordering::AcqRel) => {
                eprintln!("septwatch: {error}; until it can be written, nothing is done that acts");
            }
            Ok(()) if self.complained.swap(false, Ordering::AcqRel) => {
                eprintln!("septwatch: the audit log can be written again");
            }
            _ => {}
        }
        result
    }
}

/// What others are told: the violation as everywhere, and what the policy knows of it.
pub(super) fn message(asked: &Step, verdict: &Verdict, subject: &Subject) -> Vec<u8> {
    let mut message = serde_json::json!(verdict);
    if let Some(message) = message.as_object_mut() {
        message.insert("policy".to_owned(), asked.policy.clone().into());
        message.insert("rule".to_owned(), asked.rule.clone().into());
        message.insert("td_name".to_owned(), subject.name.clone().into());
        message.insert("td_uuid".to_owned(), subject.uuid.clone().into());
        message.insert("td_pid".to_owned(), subject.tgid.into());
    }
    let mut message = message.to_string().into_bytes();
    message.push(b'\n');
    message
}
