//! What outputs are given: an event of the vital stream, or a step of the policy, ready to be written.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    model::verdict::Verdict,
    policy::audit::Step,
    recording::header::Clock,
    source::event::Event,
    view::{json, stack::Places},
};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A TD reached a stage of its life.
    Life,
    /// A VM reached a stage that SEAMCALLs do not tell.
    Vm,
    /// A violation.
    Violation,
    /// A step of the policy.
    Reaction,
}

/// Something that happened, for outputs.
#[derive(Debug)]
pub struct Message {
    /// What it is about.
    pub topic: Topic,
    /// The record's CPU and number there, of the vital stream; a step of the policy has no record.
    pub record: Option<(u16, u64)>,
    /// The violation.
    pub verdict: Option<Verdict>,
    /// The object that `septwatch watch --json` prints for it, with `wall_ns`: ns since 1970, UTC.
    pub object: Value,
    /// The same as text, without a line break.
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
        let topic = match event {
            Event::Life(_) => Topic::Life,
            Event::Vm(_) => Topic::Vm,
            Event::Violation(_) => Topic::Violation,
            Event::Call(_) | Event::Frame(_) => return None,
        };
        let object = match found {
            Some((verdict, places)) => json::violation(verdict, places),
            None => json::event(event, None),
        };
        let header = event.header();
        let record = Some((header.cpu, header.seq));
        let verdict = found.map(|(verdict, _)| verdict.clone());
        Some(self.message(topic, record, verdict, object, header.time_ns))
    }

    /// Of a step of the policy.
    pub fn step(&self, step: &Step) -> Arc<Message> {
        let mut object = json!(step);
        object["type"] = "reaction".into();
        self.message(Topic::Reaction, None, None, object, step.done_ns.unwrap_or(step.asked_ns))
    }

    fn message(
        &self,
        topic: Topic,
        record: Option<(u16, u64)>,
        verdict: Option<Verdict>,
        mut object: Value,
        time_ns: u64,
    ) -> Arc<Message> {
        object["wall_ns"] = self.clock.realtime_of(time_ns).into();
        let line = object.to_string();
        Arc::new(Message { topic, record, verdict, object, line })
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
        assert_eq!((message.topic, message.record), (Topic::Violation, Some((3, 11))));
        let object: Value = serde_json::from_str(&message.line).unwrap();
        assert_eq!((&object["type"], &object["violation"]), (&"violation".into(), &"zap-failed".into()));
        // Monotonic 5 ns is the boot: years after 1970.
        assert!(object["wall_ns"].as_u64().unwrap() > 1_500_000_000_000_000_000);
        assert_eq!(Messages::here().event(&Event::NONE, None).map(|_| ()), None);
    }
}
