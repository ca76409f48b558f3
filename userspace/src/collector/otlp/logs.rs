//! Each violation as a log record.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::AnyValue,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
};
use serde_json::Value;

use super::{
    attributes::{self, attribute, number, text},
    export::Refused,
    ids::Ids,
    resource::{Origin, SCHEMA},
    sender::Sender,
};
use crate::{
    collector::{
        message::Message,
        outlet::{Batches, Undelivered},
    },
    model::verdict::Verdict,
    view::{lines, stack::Places},
};

/// Sends violations as log records.
#[derive(Debug)]
pub struct Logs {
    /// The way.
    pub sender: Sender,
    /// Who tells.
    pub origin: Origin,
    /// Ids of traces.
    pub ids: Ids,
}

impl Logs {
    fn request(&self, messages: &[Arc<Message>], lost: u64) -> ExportLogsServiceRequest {
        let mut log_records: Vec<_> =
            messages.iter().filter_map(|message| record(message, &self.ids)).collect();
        if let Some(first) = log_records.first_mut().filter(|_| lost != 0) {
            first.attributes.push(attribute("septwatch.lost_before", number(lost)));
        }
        let scope = Some(self.origin.scope.clone());
        let schema_url = SCHEMA.to_owned();
        let scope_logs = vec![ScopeLogs { scope, log_records, schema_url: schema_url.clone() }];
        let resource = Some(self.origin.resource.clone());
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, scope_logs, schema_url }] }
    }
}

impl Batches for Logs {
    const MOST: usize = 512;
    const WAIT: Duration = Duration::from_secs(1);

    fn takes(message: &Message) -> bool {
        message.verdict.is_some()
    }

    fn deliver(&mut self, messages: &[Arc<Message>], lost: u64) -> Result<(), Undelivered> {
        let request = self.request(messages, lost);
        match self.sender.send(request)? {
            Refused { items: 0, .. } => Ok(()),
            Refused { items, why } => {
                let why = format!("{items} log records were refused: {why}");
                Err(Undelivered::Lost { messages: usize::try_from(items).unwrap_or(usize::MAX), why })
            }
        }
    }
}

/// The journal's priorities in OpenTelemetry's numbers: syslog's critical is ERROR2.
/// <https://opentelemetry.io/docs/specs/otel/logs/data-model-appendix/#appendix-b-severitynumber-example-mappings>
fn severity(verdict: &Verdict) -> (SeverityNumber, &'static str) {
    match verdict.suspect.is_certain() {
        true => (SeverityNumber::Error2, "CRITICAL"),
        false => (SeverityNumber::Warn, "WARNING"),
    }
}

/// What a person reads: what was violated, and how that came about.
fn body(verdict: &Verdict, object: &Value) -> String {
    let names = |key: &str| {
        let names = object[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    };
    let places = Places { kernel: names("kernel_functions"), user: names("user_functions") };
    let lines = [lines::headline(verdict)].into_iter().chain(lines::details(verdict, &places));
    lines.collect::<Vec<_>>().join("\n")
}

fn record(message: &Message, ids: &Ids) -> Option<LogRecord> {
    let (verdict, header) = (message.verdict.as_ref()?, message.header.as_ref()?);
    // What it was made of is an object: it cannot fail.
    let object: Value = serde_json::from_str(&message.line).unwrap_or_default();
    let context = ids.of(header);
    let (number, word) = severity(verdict);
    let mut attributes = attributes::of(&object);
    // Who is told of it twice, as after a time-out, can see that.
    let uid: String = context.trace.iter().map(|byte| format!("{byte:02x}")).collect();
    attributes.push(attribute("log.record.uid", text(uid)));
    Some(LogRecord {
        time_unix_nano: message.wall_ns,
        observed_time_unix_nano: message.wall_ns,
        severity_number: number.into(),
        severity_text: word.to_owned(),
        body: Some(AnyValue { value: Some(text(body(verdict, &object))) }),
        attributes,
        dropped_attributes_count: 0,
        flags: super::traces::SAMPLED,
        trace_id: context.trace.to_vec(),
        span_id: context.span.to_vec(),
        event_name: "septwatch.violation".to_owned(),
    })
}
