//! Reading the streams: what they have, then what comes, over the ends of connections and of servers.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::{
    Event,
    jetstream::{
        self, Context,
        consumer::{AckPolicy, DeliverPolicy, pull},
    },
};
use thiserror::Error;
use tokio::{sync::Notify, time::timeout};
use tokio_stream::StreamExt as _;

use super::{
    EVENTS, HOSTS,
    connect::{Connect, ConnectError},
};
use crate::told::told;

/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The server says in this time that it is there, while it has nothing to tell.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Messages that are asked for at once.
const BATCH: usize = 5000;
/// How long nothing is tried after something failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A stream cannot be read.
#[derive(Debug, Error)]
pub enum StreamError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server has no such stream, or does not give it.
    #[error("stream {name}: {why}")]
    Stream {
        /// Which.
        name: &'static str,
        /// Why.
        why: String,
    },
}

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Events.
    Events,
    /// How hosts stand.
    Hosts,
}

impl Which {
    const fn name(self) -> &'static str {
        match self {
            Self::Events => EVENTS,
            Self::Hosts => HOSTS,
        }
    }
}

/// What is read.
#[derive(Debug)]
pub enum Arrived<'a> {
    /// A message.
    Message {
        /// The last part of its subject: the topic of an event, the name of a host.
        topic: &'a str,
        /// Its number in the stream.
        seq: u64,
        /// What it says.
        payload: &'a [u8],
    },
    /// All that the stream had when reading began is read.
    CaughtUp,
    /// It cannot be read now, for this reason; it is tried again.
    Trouble(&'a StreamError),
}

/// Where reading begins.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// With the first message that the stream has.
    Start,
    /// With the first that came at this time or later.
    Time(SystemTime),
}

/// Reads a stream until `sink` has enough.
///
/// # Errors
/// It cannot be read, and nothing was read of it before. Later that is [`Arrived::Trouble`], and tried again.
pub async fn read(
    connect: &Connect,
    which: Which,
    from: From,
    mut sink: impl FnMut(Arrived<'_>) -> ControlFlow<()>,
) -> Result<(), StreamError> {
    let mut at = At { from, next: None, begun: false, caught_up: false };
    loop {
        let error = match session(connect, which, &mut at, &mut sink).await {
            Ok(()) => return Ok(()),
            Err(error) if !at.begun => return Err(error),
            Err(error) => error,
        };
        if sink(Arrived::Trouble(&error)).is_break() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How far reading has come.
struct At {
    from: From,
    /// The next message of the stream; none: there was none.
    next: Option<u64>,
    /// It was found.
    begun: bool,
    caught_up: bool,
}

/// Reads with one connection. Returns when the sink has enough.
async fn session(
    connect: &Connect,
    which: Which,
    at: &mut At,
    sink: &mut impl FnMut(Arrived<'_>) -> ControlFlow<()>,
) -> Result<(), StreamError> {
    let name = which.name();
    let failed = |why: String| StreamError::Stream { name, why };
    let gone = Arc::new(Notify::new());
    let saw = Arc::clone(&gone);
    let client = connect.connect("septwatch fleet", move |event| {
        if matches!(event, Event::Disconnected | Event::Closed) {
            saw.notify_one();
        }
    });
    let context: Context = jetstream::ContextBuilder::new().timeout(PATIENCE).build(client.await?);
    let stream = context.get_stream(name).await.map_err(|error| failed(told(&error)))?;
    let last = stream.cached_info().state.last_sequence;
    let begun = SystemTime::now();
    let deliver_policy = match (at.next, at.from) {
        // A stream that was made anew begins again.
        (Some(next), _) if next <= last + 1 => DeliverPolicy::ByStartSequence { start_sequence: next },
        (Some(_), _) | (None, From::Start) => DeliverPolicy::All,
        (None, From::Time(time)) => DeliverPolicy::ByStartTime { start_time: time.into() },
    };
    let config = pull::Config {
        deliver_policy,
        ack_policy: AckPolicy::None,
        memory_storage: true,
        inactive_threshold: Duration::from_secs(60),
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(|error| failed(told(&error)))?;
    let waiting = consumer.cached_info().num_pending;
    at.begun = true;
    if waiting == 0 && !std::mem::replace(&mut at.caught_up, true) && sink(Arrived::CaughtUp).is_break() {
        return Ok(());
    }
    let messages = consumer.stream().max_messages_per_batch(BATCH).heartbeat(HEARTBEAT).messages();
    let messages = timeout(PATIENCE, messages).await.map_err(|_| failed("no answer".to_owned()))?;
    let mut messages = messages.map_err(|error| failed(told(&error)))?;
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = gone.notified() => return Err(failed("the connection has ended".to_owned())),
        };
        let message = message.ok_or_else(|| failed("the server ended it".to_owned()))?;
        let message = message.map_err(|error| failed(told(&error)))?;
        let info = message.info().map_err(|error| failed(error.to_string()))?;
        let (seq, is_last) = (info.stream_sequence, info.pending == 0 || begun <= info.published);
        at.next = Some(seq + 1);
        let topic = message.subject.rsplit('.').next().unwrap_or_default();
        if sink(Arrived::Message { topic, seq, payload: &message.payload }).is_break() {
            return Ok(());
        }
        if is_last && !std::mem::replace(&mut at.caught_up, true) && sink(Arrived::CaughtUp).is_break() {
            return Ok(());
        }
    }
}

/// The payload of one event, by its number in the stream.
///
/// # Errors
/// It cannot be read, or the stream does not have it any more.
pub async fn fetch(connect: &Connect, seq: u64) -> Result<Vec<u8>, StreamError> {
    let failed = |why: String| StreamError::Stream { name: EVENTS, why };
    let client = connect.connect("septwatch fleet", |_| ()).await?;
    let context: Context = jetstream::ContextBuilder::new().timeout(PATIENCE).build(client);
    let stream = context.get_stream(EVENTS).await.map_err(|error| failed(told(&error)))?;
    let message = stream.get_raw_message(seq).await.map_err(|error| failed(told(&error)))?;
    Ok(message.payload.into())
}
