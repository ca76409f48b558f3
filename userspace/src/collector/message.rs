//! What outputs are given: an event of the vital stream, or a step of the policy, ready to be written.

use std::sync::Arc;

use septwatch_common::wire::Header;
use serde_json::{Value, json};

use crate::{
    model::verdict::Verdict,
    policy::audit::Step,
    recording::header::Clock,
    source::event::Event,
    view::{json, stack::Places},
};

/// Something that happened, for outputs.
#[derive(Debug)]
pub struct Message {
    /// The violation.
    pub verdict: Option<Verdict>,
    /// How the record begins; none for a step of the policy, which is no record.
    pub header: Option<Header>,
    /// When, in ns since 1970, UTC.
    pub wall_ns: u64,
    /// The object that `septwatch watch --json` prints for it, with `wall_ns`, as text without a line break.
    pub line: String,
}

/// Makes messages.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    /// A moment on both clocks.
    clock: Clock,
}

impl Messages {
    /// Of this host.
    pub fn here() -> Self {
        Self { clock: Clock::now() }
    }

    /// The clocks have moved against each other, as when somebody sets one.
    pub fn set_clock(&mut self) {
        self.clock = Clock::now();
    }

    /// Of an event; page records are none of outputs' business.
    pub fn event(&self, event: &Event, found: Option<(&Verdict, &Places)>) -> Option<Arc<Message>> {
        if !event.is_vital() {
            return None;
        }
        let object = match found {
            Some((verdict, places)) => json::violation(verdict, places),
            None => json::event(event, None),
        };
        let verdict = found.map(|(verdict, _)| verdict.clone());
        Some(Arc::new(Message {
            header: Some(*event.header()),
            ..self.message(verdict, object, event.header().time_ns)
        }))
    }

    /// Of a step of the policy.
    pub fn step(&self, step: &Step) -> Arc<Message> {
        let mut object = json!(step);
        object["type"] = "reaction".into();
        Arc::new(self.message(None, object, step.done_ns.unwrap_or(step.asked_ns)))
    }

    fn message(&self, verdict: Option<Verdict>, mut object: Value, time_ns: u64) -> Message {
        let wall_ns = self.clock.realtime_of(time_ns);
        object["wall_ns"] = wall_ns.into();
        Message { verdict, header: None, wall_ns, line: object.to_string() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use septwatch_common::{
        Violation,
        wire::{Header, Kind, VERSION, ViolationEvent},
    };
    use zerocopy::FromZeros as _;

    use super::*;

    /// A violation with this number on CPU 3.
    pub fn message(seq: u64) -> Arc<Message> {
        let mut event = ViolationEvent::new_zeroed();
        let kind = Kind::Violation as u8;
        event.header = Header { time_ns: 5, seq, tgid: 7, cpu: 3, kind, version: VERSION };
        (event.violation, event.td_id, event.pfn) = (Violation::ZapFailed as u8, 9, 0x1234);
        let verdict = Verdict::of(&event).unwrap();
        let places = Places::nameless(&verdict);
        Messages::here().event(&Event::Violation(Box::new(event)), Some((&verdict, &places))).unwrap()
    }

    #[test]
    fn a_message_is_the_object_that_watch_prints_and_a_time_of_day() {
        let message = message(11);
        assert!(message.verdict.is_some());
        let object: Value = serde_json::from_str(&message.line).unwrap();
        assert_eq!((&object["type"], &object["violation"]), (&"violation".into(), &"zap-failed".into()));
        // Monotonic 5 ns is the boot: years after 1970.
        assert!(object["wall_ns"].as_u64().unwrap() > 1_500_000_000_000_000_000);
        assert_eq!(object["wall_ns"], message.wall_ns);
        assert_eq!(Messages::here().event(&Event::NONE, None).map(|_| ()), None);
    }
}
