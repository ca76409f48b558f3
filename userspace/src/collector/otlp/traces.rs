//! A violation's life as a trace: a span from the first moment that is known of it to the last, and in it one for each part.

use std::{collections::HashMap, sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::KeyValue,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link, SpanKind},
        status::StatusCode,
    },
};
use septwatch_common::{Leaf, Violation, kvm::GmemOp};
use serde_json::Value;

use super::{
    attributes::{self, attribute, number, text},
    export::Refused,
    ids::{Context, Ids},
    resource::{Origin, SCHEMA},
    sender::Sender,
};
use crate::{
    collector::{
        message::Message,
        outlet::{Batches, Undelivered},
    },
    model::{verdict::Verdict, windows},
    view::lines,
};

/// In flags: every trace is kept. <https://www.w3.org/TR/trace-context-2/#trace-flags>
pub const SAMPLED: u32 = 1;

/// Frames whose last violation is remembered; when there are more, all are forgotten, and violations stand by themselves.
const REMEMBERED: usize = 1 << 14;

/// A frame of a TD.
type Frame = (u32, u64);

/// Sends violations as traces.
#[derive(Debug)]
pub struct Traces {
    sender: Sender,
    origin: Origin,
    ids: Ids,
    /// The last violation of a frame.
    earlier: HashMap<Frame, Context>,
}

impl Traces {
    /// None is known yet.
    pub fn new(sender: Sender, origin: Origin, ids: Ids) -> Self {
        Self { sender, origin, ids, earlier: HashMap::new() }
    }

    /// The spans of violations, and the last violation of each frame among them.
    fn spans(&self, messages: &[Arc<Message>]) -> (Vec<Span>, HashMap<Frame, Context>) {
        let (mut spans, mut last) = (Vec::new(), HashMap::new());
        for message in messages {
            let Some((verdict, header)) = message.verdict.as_ref().zip(message.header.as_ref()) else {
                continue;
            };
            let context = self.ids.of(header);
            let frame = verdict.td.zip(verdict.pfn);
            let earlier = frame.and_then(|frame| last.get(&frame).or(self.earlier.get(&frame)).copied());
            spans.extend(Life { message, verdict, context }.spans(earlier));
            last.extend(frame.map(|frame| (frame, context)));
        }
        (spans, last)
    }
}

impl Batches for Traces {
    const MOST: usize = 512;
    const WAIT: Duration = Duration::from_secs(1);

    fn takes(message: &Message) -> bool {
        message.verdict.is_some()
    }

    fn deliver(&mut self, messages: &[Arc<Message>], _: u64) -> Result<(), Undelivered> {
        let (spans, last) = self.spans(messages);
        let scope = Some(self.origin.scope.clone());
        let schema_url = SCHEMA.to_owned();
        let scope_spans = vec![ScopeSpans { scope, spans, schema_url: schema_url.clone() }];
        let resource = Some(self.origin.resource.clone());
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url }],
        };
        let refused = self.sender.send(request)?;
        if self.earlier.len() + last.len() > REMEMBERED {
            self.earlier.clear();
        }
        self.earlier.extend(last);
        match refused {
            Refused { items: 0, .. } => Ok(()),
            // Which, is not told. A violation one of whose spans was refused is lost: at most one for each span.
            Refused { items, why } => {
                let why = format!("{items} spans were refused: {why}");
                Err(Undelivered::Lost { messages: usize::try_from(items).unwrap_or(usize::MAX), why })
            }
        }
    }
}

/// What is known of a violation's life.
struct Life<'m> {
    message: &'m Message,
    verdict: &'m Verdict,
    context: Context,
}

/// A part of it: its name, and when it began and ended, in ns of CLOCK_MONOTONIC.
type Part = (&'static str, u64, u64);

impl Life<'_> {
    fn wall_ns(&self, monotonic_ns: u64) -> u64 {
        self.message.wall_ns.saturating_sub(self.verdict.time_ns.saturating_sub(monotonic_ns))
    }

    /// When the page allocator received the frame, where it did.
    fn released_ns(&self) -> Option<u64> {
        let Verdict { violation, time_ns, window_ns, .. } = self.verdict;
        match violation {
            Violation::FreedWhileMapped
            | Violation::FreedWhileBlocked
            | Violation::FreedWhileOwned
            | Violation::FreedUnflushed => Some(*time_ns),
            _ => window_ns.map(|window| time_ns.saturating_sub(window)),
        }
    }

    fn invalidation_ns(&self) -> Option<u64> {
        self.verdict.invalidation_ns.map(|since| self.verdict.time_ns.saturating_sub(since))
    }

    /// The moments that are known, in their order.
    fn moments(&self) -> Vec<(u64, &'static str, Vec<KeyValue>)> {
        let verdict = self.verdict;
        let mut moments = Vec::new();
        if let Some(failed) = verdict.failed {
            let leaf = failed.leaf.map(|leaf| attribute("septwatch.leaf", text(Leaf::name(leaf))));
            let status = attribute("septwatch.status", text(format!("{:#x}", failed.status.0)));
            let name = failed.status.name().map(|name| attribute("septwatch.status_name", text(name)));
            moments.push((
                failed.time_ns,
                "seamcall-failed",
                leaf.into_iter().chain([status]).chain(name).collect(),
            ));
        }
        if let Some(begun) = self.invalidation_ns() {
            moments.push((begun, "invalidation-began", Vec::new()));
        }
        if let Some(let_go) = verdict.let_go {
            let of_frame = [
                attribute("septwatch.guest_memfd.inode", number(let_go.inode)),
                attribute("septwatch.guest_memfd.index", number(let_go.index)),
            ];
            let op = GmemOp::from_number(let_go.op).name();
            let op = op.map(|op| attribute("septwatch.guest_memfd.operation", text(op)));
            moments.push((let_go.time_ns, "let-go", of_frame.into_iter().chain(op).collect()));
        }
        if let Some(released) = self.released_ns().filter(|released| *released != verdict.time_ns) {
            moments.push((released, "released", Vec::new()));
        }
        moments.push((verdict.time_ns, verdict.violation.name(), Vec::new()));
        moments.sort_by_key(|(time, ..)| *time);
        moments
    }

    /// The parts that are known, by the names that windows have in metrics.
    fn parts(&self) -> Vec<Part> {
        let verdict = self.verdict;
        let (now, released) = (verdict.time_ns, self.released_ns());
        let failed =
            verdict.failed.filter(|_| verdict.since_failed_ns.is_some()).map(|failed| failed.time_ns);
        let let_go = verdict.let_go.map(|let_go| let_go.time_ns);
        let reused = verdict.window_ns.and(released);
        let bugged = failed.filter(|_| verdict.violation == Violation::VmBugged);
        let parts = [
            ("invalidation", self.invalidation_ns(), Some(now)),
            (windows::Span::FailureToBugged.name(), bugged, Some(now)),
            (windows::Span::FailedZapToRelease.name(), failed, released),
            ("let-go-to-release", let_go, released),
            (windows::Span::ReleaseToReuse.name(), reused, Some(now)),
        ];
        parts.into_iter().filter_map(|(name, begun, ended)| Some((name, begun?, ended?))).collect()
    }

    fn spans(&self, earlier: Option<Context>) -> Vec<Span> {
        let (verdict, context) = (self.verdict, self.context);
        let moments = self.moments();
        let begun = moments.first().map_or(verdict.time_ns, |(time, ..)| *time).min(verdict.time_ns);
        let object: Value = serde_json::from_str(&self.message.line).unwrap_or_default();
        let events = moments.into_iter().map(|(time, name, attributes)| Event {
            time_unix_nano: self.wall_ns(time),
            name: name.to_owned(),
            attributes,
            dropped_attributes_count: 0,
        });
        let links = earlier.filter(|earlier| *earlier != context).map(|earlier| Link {
            trace_id: earlier.trace.to_vec(),
            span_id: earlier.span.to_vec(),
            attributes: vec![attribute("septwatch.link", text("earlier violation of this frame"))],
            flags: SAMPLED,
            ..Link::default()
        });
        let root = Span {
            name: verdict.violation.name().to_owned(),
            attributes: attributes::of(&object),
            events: events.collect(),
            links: links.into_iter().collect(),
            status: Some(Status { message: lines::headline(verdict), code: StatusCode::Error.into() }),
            ..self.span(context, begun, verdict.time_ns)
        };
        let parts = (1..).zip(self.parts()).map(|(at, (name, begun, ended))| Span {
            name: name.to_owned(),
            parent_span_id: context.span.to_vec(),
            ..self.span(context.child(at), begun, ended)
        });
        [root].into_iter().chain(parts).collect()
    }

    fn span(&self, context: Context, begun: u64, ended: u64) -> Span {
        Span {
            trace_id: context.trace.to_vec(),
            span_id: context.span.to_vec(),
            flags: SAMPLED,
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: self.wall_ns(begun),
            end_time_unix_nano: self.wall_ns(ended.max(begun)),
            ..Span::default()
        }
    }
}
