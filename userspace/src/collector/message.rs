//! What outputs are given: an event of the vital stream, or a step of the policy, ready to be written.

use std::sync::Arc;

use septwatch_common::wire::Header;
use serde_json::{Value, json};

use crate::{
    fleet::envelope::Number,
    model::verdict::Verdict,
    policy::audit::Step,
    recording::header::Clock,
    source::event::Event,
    view::{json, stack::Places},
};

/// Something that happened, for outputs.
#[derive(Debug)]
pub struct Message {
    /// Its number among what this host tells.
    pub number: Number,
    /// What it is about: the `type` of the object.
    pub topic: &'static str,
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
    /// When this process began to tell, in ns since 1970, and the steps that it has told.
    began_ns: u64,
    steps: u64,
}

impl Messages {
    /// Of this host.
    pub fn here() -> Self {
        let clock = Clock::now();
        Self { clock, began_ns: clock.realtime_ns, steps: 0 }
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
        let topic = match event {
            Event::Life(_) => "td",
            Event::Call(_) => "seamcall",
            Event::Frame(_) => "frame",
            Event::Vm(_) => "vm",
            Event::Violation(_) => "violation",
        };
        let header = *event.header();
        let number = Number::Record { cpu: header.cpu, seq: header.seq };
        let verdict = found.map(|(verdict, _)| verdict.clone());
        Some(Arc::new(Message {
            header: Some(header),
            ..self.message(number, topic, verdict, object, header.time_ns)
        }))
    }

    /// Of a step of the policy.
    pub fn step(&mut self, step: &Step) -> Arc<Message> {
        const TOPIC: &str = "reaction";
        let number = Number::Step { agent_ns: self.began_ns, step: self.steps };
        self.steps += 1;
        let mut object = json!(step);
        object["type"] = TOPIC.into();
        Arc::new(self.message(number, TOPIC, None, object, step.done_ns.unwrap_or(step.asked_ns)))
    }

    fn message(
        &self,
        number: Number,
        topic: &'static str,
        verdict: Option<Verdict>,
        mut object: Value,
        time_ns: u64,
    ) -> Message {
        let wall_ns = self.clock.realtime_of(time_ns);
        object["wall_ns"] = wall_ns.into();
        Message { number, topic, verdict, header: None, wall_ns, line: object.to_string() }
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
        assert_eq!((message.number, message.topic), (Number::Record { cpu: 3, seq: 11 }, "violation"));
        let object: Value = serde_json::from_str(&message.line).unwrap();
        assert_eq!((&object["type"], &object["violation"]), (&"violation".into(), &"zap-failed".into()));
        // Monotonic 5 ns is the boot: years after 1970.
        assert!(object["wall_ns"].as_u64().unwrap() > 1_500_000_000_000_000_000);
        assert_eq!(object["wall_ns"], message.wall_ns);
        assert_eq!(Messages::here().event(&Event::NONE, None).map(|_| ()), None);
    }
}
