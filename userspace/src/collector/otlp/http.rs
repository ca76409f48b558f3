//! OTLP over HTTP with protobuf. <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::time::Duration;

use prost::Message as _;
use ureq::{Agent, http::HeaderMap};

use super::{Config, Endpoint, OtlpError, export::Export, secrets::Secrets, sender};
use crate::{authorities, collector::outlet::Undelivered};

/// Bytes of an answer that are read at most: it says in a few words what was refused.
const LONGEST_ANSWER: u64 = 64 << 10;

/// A collector that is spoken to by HTTP.
#[derive(Debug)]
pub struct Http {
    agent: Agent,
    endpoint: Endpoint,
    headers: HeaderMap,
}

impl Http {
    /// Nothing is sent yet, and nobody need be there.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(config: &Config, secrets: Secrets) -> Result<Self, OtlpError> {
        let mut agent = Agent::config_builder()
            .timeout_global(Some(config.timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(sender::AGENT)
            .proxy(None);
        if let Some(pem) = &secrets.authorities {
            agent = agent.tls_config(authorities::tls(pem)?);
        }
        let agent = agent.build().new_agent();
        Ok(Self { agent, endpoint: config.endpoint.clone(), headers: secrets.headers })
    }

    /// Sends a request, and returns its answer.
    ///
    /// # Errors
    /// There is none, or it is an error.
    pub fn send<E: Export>(&self, request: &E) -> Result<E::Answer, Undelivered> {
        // Whoever does not answer in HTTP may be on its way up, or a proxy before it.
        let later = |why: ureq::Error| Undelivered::Later { why: sender::told(&why), after: None };
        let lost = |why: String| Undelivered::Lost { messages: usize::MAX, why };
        let mut post = self.agent.post(self.endpoint.at(E::HTTP)).content_type("application/x-protobuf");
        if let Some(headers) = post.headers_mut() {
            headers.extend(self.headers.clone());
        }
        let mut answer = post.send(request.encode_to_vec()).map_err(later)?;
        let status = answer.status();
        if status.is_success() {
            let body = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
            // The status alone says that it was taken; but a part of it may not have been.
            let body =
                body.map_err(|why| lost(format!("answered {status}, and then: {}", sender::told(&why))))?;
            let read = E::Answer::decode(body.as_slice());
            return read.map_err(|_| lost(format!("answered {status} with something else than OTLP has")));
        }
        let why = format!("answered {status}");
        match status.as_u16() {
            429 | 502..=504 => Err(Undelivered::Later { why, after: after(answer.headers()) }),
            _ => Err(lost(why)),
        }
    }
}

/// What `Retry-After` asks for, in seconds; a date is none of what collectors send.
fn after(headers: &HeaderMap) -> Option<Duration> {
    headers.get("retry-after")?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
