//! From the spool to the server: so many at a time, and the next when the server has said that it has the first.

use std::{
    collections::VecDeque,
    error::Error as _,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Event,
    jetstream::{
        self, Context, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    super::{outlet::Counts, pause::BackOff},
    spool::{Place, Unsent},
    state::Teller,
};
use crate::{
    fleet::{self, connect::Connect},
    locked::lock,
    told::told,
};

/// Messages that are under way at a time.
const WINDOW: usize = 512;
/// So many are acknowledged in the spool at once.
const BATCH: u32 = 64;
/// How long the server has for each.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is told how the host stands.
const STATE: Duration = Duration::from_secs(5);
/// A connection that lasted so long was no failed try.
const LASTED: Duration = Duration::from_secs(20);

/// What stands before an envelope in the spool.
pub(super) fn begin_line(line: &mut String, topic: &str, id: &str) {
    line.extend([topic, " ", id, " "]);
}

/// Topic, id and envelope.
fn parts(line: &[u8]) -> Option<(String, String, Vec<u8>)> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let mut text = || String::from_utf8(parts.next()?.to_vec()).ok();
    let (topic, id) = (text()?, text()?);
    Some((topic, id, parts.next()?.to_vec()))
}

/// The sending end.
pub(super) struct Publisher {
    pub connect: Connect,
    pub history: Duration,
    pub unsent: Unsent,
    pub counts: Arc<Counts>,
    pub wake: Arc<Notify>,
    pub ending: Arc<AtomicBool>,
    pub host: String,
    pub teller: Teller,
    /// What is before this place is done with, and not put down yet.
    pub done: Option<Place>,
}

/// What became of a message; an error: it is to be sent again.
enum Sent {
    Delivered,
    /// The server will never take it.
    Lost(String),
}

type UnderWay = Pin<Box<dyn Future<Output = Result<Sent, String>> + Send>>;

/// What the connection said of itself.
#[derive(Default)]
struct Seen {
    gone: Notify,
    error: Mutex<Option<String>>,
}

impl Seen {
    fn saw(&self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed | Event::LameDuckMode => self.gone.notify_one(),
            Event::ServerError(_) | Event::ClientError(_) => {
                *lock(&self.error) = Some(event.to_string());
            }
            _ => {}
        }
    }

    /// Why something failed, with what the server said before, as that something is not permitted.
    fn why(&self, why: String) -> String {
        match lock(&self.error).take() {
            Some(error) => format!("{why} ({error})"),
            None => why,
        }
    }
}

impl Publisher {
    pub async fn run(mut self) {
        let mut pause = BackOff::default();
        loop {
            let begun = Instant::now();
            let Err(why) = self.connected().await else { return };
            if let Err(why) = self.mark() {
                eprintln!("septwatch: output bus: {why}");
            }
            if self.ending.load(Ordering::Acquire) {
                return;
            }
            if self.counts.troubled(&why) {
                eprintln!("septwatch: output bus: {why}: events wait in the spool");
            }
            self.unsent.rewind();
            if begun.elapsed() > LASTED {
                pause = BackOff::default();
            }
            let over = Instant::now() + pause.next(None);
            while Instant::now() < over && !self.ending.load(Ordering::Acquire) {
                // Woken for each event, and for the end.
                let _ = timeout(over - Instant::now(), self.wake.notified()).await;
            }
        }
    }

    /// Connects, and sends. Returns when all was sent and this is to end.
    async fn connected(&mut self) -> Result<(), String> {
        let seen = Arc::new(Seen::default());
        let saw = Arc::clone(&seen);
        let name = format!("septwatch agent on {}", self.host);
        let client = self.connect.connect(&name, move |event| saw.saw(event)).await;
        let client = client.map_err(|error| told(&error))?;
        let context = jetstream::ContextBuilder::new().timeout(PATIENCE).ack_timeout(PATIENCE).build(client);
        let streams = fleet::ensure(&context, self.history).await;
        let sent = tokio::select! {
            sent = self.send(&context) => sent,
            () = seen.gone.notified() => Err("the connection has ended".to_owned()),
        };
        sent.map_err(|why| match streams {
            Ok(()) => seen.why(why),
            Err(error) => {
                seen.why(format!("{why}; the streams {}, {}: {error}", fleet::EVENTS, fleet::HOSTS))
            }
        })
    }

    async fn send(&mut self, context: &Context) -> Result<(), String> {
        let mut under_way: VecDeque<(Place, UnderWay)> = VecDeque::with_capacity(WINDOW);
        let mut unmarked = 0;
        let mut next_state = Instant::now();
        loop {
            while under_way.len() < WINDOW
                && let Some((place, line)) = self.unsent.next(parts).map_err(|error| error.to_string())?
            {
                under_way.push_back((place, self.begin(context, line).await?));
            }
            if Instant::now() >= next_state {
                self.tell(context, false).await?;
                next_state = Instant::now() + STATE;
            }
            let Some((place, sent)) = under_way.pop_front() else {
                if self.ending.load(Ordering::Acquire) {
                    return self.tell(context, true).await;
                }
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(next_state) => {}
                }
                continue;
            };
            match sent.await? {
                Sent::Delivered => self.counts.delivered(1),
                Sent::Lost(why) => {
                    self.counts.lost(1, &why);
                    eprintln!("septwatch: output bus: an event is lost there: {why}");
                }
            }
            self.done = Some(place);
            unmarked += 1;
            if unmarked == BATCH || under_way.is_empty() {
                unmarked = 0;
                self.mark()?;
            }
        }
    }

    /// Puts down what is done with.
    fn mark(&mut self) -> Result<(), String> {
        match self.done.take() {
            None => Ok(()),
            Some(place) => self.unsent.acknowledge(place).map_err(|error| format!("the spool: {error}")),
        }
    }

    async fn begin(
        &self,
        context: &Context,
        line: Option<(String, String, Vec<u8>)>,
    ) -> Result<UnderWay, String> {
        let lost = |why: String| -> UnderWay { Box::pin(std::future::ready(Ok(Sent::Lost(why)))) };
        let Some((topic, id, envelope)) = line else {
            return Ok(lost("the spool has a line that is none of ours".to_owned()));
        };
        let message =
            PublishMessage::build().message_id(id).expected_stream(fleet::EVENTS).payload(envelope.into());
        let subject = fleet::event_subject(&self.host, &topic);
        let begun = timeout(PATIENCE, context.send_publish(subject, message)).await;
        match begun.map_err(|_| "the server takes nothing".to_owned())? {
            Ok(acknowledged) => Ok(Box::pin(async move {
                match acknowledged.await {
                    Ok(_) => Ok(Sent::Delivered),
                    Err(error) if is_too_large(&error) => Ok(Sent::Lost(told(&error))),
                    Err(error) => Err(told(&error)),
                }
            })),
            Err(error) if is_too_large(&error) => Ok(lost(told(&error))),
            Err(error) => Err(told(&error)),
        }
    }

    /// Tells how the host stands. What is missed is told the next time.
    async fn tell(&self, context: &Context, ended: bool) -> Result<(), String> {
        let Some(state) = self.teller.state(ended) else { return Ok(()) };
        let state = serde_json::to_vec(&state).map_err(|error| error.to_string())?;
        let message = PublishMessage::build().expected_stream(fleet::HOSTS).payload(state.into());
        let begun = timeout(PATIENCE, context.send_publish(fleet::host_subject(&self.host), message)).await;
        let begun = begun.map_err(|_| "the server takes nothing".to_owned())?;
        begun.map_err(|error| told(&error))?.await.map(|_| ()).map_err(|error| told(&error))
    }
}

/// Whether the server will never take this message.
fn is_too_large(error: &PublishError) -> bool {
    let code = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || code.is_some_and(|error| error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_topic_an_id_and_an_envelope() {
        let mut line = String::new();
        begin_line(&mut line, "td", "b.7.0.1");
        line.push_str("{\"a\": \"b c\"}");
        let found = parts(line.as_bytes());
        assert_eq!(found, Some(("td".to_owned(), "b.7.0.1".to_owned(), b"{\"a\": \"b c\"}".to_vec())));
        assert_eq!(parts(b"td b"), None);
        assert_eq!(parts(b"\xff b {}"), None);
    }
}
