//! Hosts together: what each of them sends to a NATS server with JetStream, and what is made of it.
//!
//! There are two streams. Events are kept for as long as the stream keeps them; each has an id of its own, by which one that
//! comes again is known. Of how hosts stand, only the newest of each is kept.

pub mod connect;
pub mod envelope;
pub mod model;
pub mod stream;

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    context::CreateStreamError,
    stream::{Config, DiscardPolicy, StorageType},
};

/// Name of the stream of events.
pub const EVENTS: &str = "septwatch-events";
/// Name of the stream of how hosts stand.
pub const HOSTS: &str = "septwatch-hosts";

/// Within this time, a server drops what it already has, by its id. Afterwards readers do.
const DUPLICATES: Duration = Duration::from_secs(120);

/// Subject of an event: `septwatch.events.HOST.TOPIC`.
pub fn event_subject(host: &str, topic: &str) -> String {
    format!("septwatch.events.{}.{topic}", token(host))
}

/// Subject of how a host stands: `septwatch.hosts.HOST`.
pub fn host_subject(host: &str) -> String {
    format!("septwatch.hosts.{}", token(host))
}

/// A host's name as one part of a subject, in which some characters mean something.
fn token(host: &str) -> String {
    host.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).collect()
}

/// Makes the streams if they are not there; events are kept for so long. Streams that are there stay as they are: their
/// limits are their owner's.
///
/// # Errors
/// It is not known that they are there: who may publish only does not learn it.
pub async fn ensure(context: &Context, history: Duration) -> Result<(), CreateStreamError> {
    let config = |name: &str, subject: &str| Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        duplicate_window: DUPLICATES,
        ..Config::default()
    };
    let events = Config { max_age: history, ..config(EVENTS, "septwatch.events.>") };
    context.get_or_create_stream(events).await?;
    let hosts = Config { max_messages_per_subject: 1, ..config(HOSTS, "septwatch.hosts.*") };
    context.get_or_create_stream(hosts).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_name_is_one_part_of_a_subject() {
        assert_eq!(event_subject("a.example.org", "td"), "septwatch.events.a_example_org.td");
        assert_eq!(host_subject("> *\u{e9}"), "septwatch.hosts.____");
    }
}
