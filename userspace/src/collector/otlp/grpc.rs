//! OTLP over gRPC. <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>

use std::{error::Error, io, time::Duration};

use tokio::runtime::{self, Runtime};
use tonic::{
    Code, Request, Status,
    client::Grpc as Client,
    codegen::http::uri::PathAndQuery,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Transport},
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use super::{Config, OtlpError, export::Export, secrets::Secrets};
use crate::collector::{otlp::sender::told, outlet::Undelivered};

/// A collector that is spoken to by gRPC, on this thread.
#[derive(Debug)]
pub struct Grpc {
    runtime: Runtime,
    channel: Channel,
    headers: MetadataMap,
    timeout: Duration,
}

impl Grpc {
    /// Nothing is sent yet, and nobody need be there.
    ///
    /// # Errors
    /// The URL or the certificates cannot be used, or there are no more descriptors.
    pub fn new(config: &Config, secrets: Secrets) -> Result<Self, OtlpError> {
        let wrong = |error: tonic::transport::Error| OtlpError::Transport(innermost(&error));
        let mut transport = Transport::from_shared(config.endpoint.to_string()).map_err(wrong)?;
        transport =
            transport.connect_timeout(config.timeout).user_agent(super::sender::AGENT).map_err(wrong)?;
        if let Some(pem) = &secrets.authorities {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            transport = transport.tls_config(tls.assume_http2(true)).map_err(wrong)?;
        }
        let failed = |error: io::Error| OtlpError::Transport(error.to_string());
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let channel = {
            let _inside = runtime.enter();
            transport.connect_lazy()
        };
        Ok(Self {
            runtime,
            channel,
            headers: MetadataMap::from_headers(secrets.headers),
            timeout: config.timeout,
        })
    }

    /// Sends a request, and returns its answer.
    ///
    /// # Errors
    /// There is none, or it is an error.
    pub fn send<E: Export>(&self, request: E) -> Result<E::Answer, Undelivered> {
        let mut client = Client::new(self.channel.clone());
        let exchange = async {
            // Not `?`: where nobody listens, that is told here as a transport's error, without its reasons.
            client.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let mut request = Request::from_parts(self.headers.clone(), Default::default(), request);
            request.set_timeout(self.timeout);
            let path = PathAndQuery::from_static(E::GRPC);
            client.unary(request, path, ProstCodec::<E, E::Answer>::default()).await
        };
        // All of it: a name that is looked up, a connection, a request that is not answered.
        let answer = self.runtime.block_on(async { tokio::time::timeout(self.timeout, exchange).await });
        match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(undelivered(&status)),
            Err(_) => {
                Err(Undelivered::Later { why: format!("no answer for {:?}", self.timeout), after: None })
            }
        }
    }
}

/// Whether what was refused may be sent again.
fn undelivered(status: &Status) -> Undelivered {
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    // What the other side did not say has a source: it broke off, or spoke something else.
    let broke_off = status.code() == Code::Unknown && status.source().is_some();
    let why = match status.source() {
        Some(source) => told(&innermost(source)),
        None => told(&format_args!("answered {:?}: {}", status.code(), status.message())),
    };
    let again = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => after.is_some(),
        _ => broke_off,
    };
    match again {
        true => Undelivered::Later { why, after },
        false => Undelivered::Lost { messages: usize::MAX, why },
    }
}

/// What all others only hand on: a transport tells its reasons in layers.
fn innermost(mut error: &(dyn Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn is_later(status: &Status) -> Option<Option<Duration>> {
        match undelivered(status) {
            Undelivered::Later { after, .. } => Some(after),
            Undelivered::Lost { .. } => None,
        }
    }

    #[test]
    fn what_may_be_sent_again_is_what_otlp_says() {
        for code in (0..17).map(Code::from_i32) {
            let again = [1, 4, 10, 11, 14, 15].map(Code::from_i32).contains(&code);
            assert_eq!(is_later(&Status::new(code, "")).is_some(), again, "{code:?}");
        }
        let second = Duration::from_secs(1);
        let details = ErrorDetails::with_retry_info(Some(second));
        let full = Status::with_error_details(Code::ResourceExhausted, "full", details);
        assert_eq!(is_later(&full), Some(Some(second)));
        let broken = Status::from_error(Box::new(io::Error::other("reset")));
        assert_eq!(is_later(&broken), Some(None));
    }
}
