//! Connections and requests, one by one.

use std::{
    convert::Infallible,
    error::Error as _,
    future::ready,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    header::{
        ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue,
        WWW_AUTHENTICATE,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Clients, Limits, Page, Shared, access::Gate, clients::Ended, listen::Listening, patient::Patient,
};

/// Longest head of a request, in bytes.
const LONGEST: usize = 16 * 1024;
/// Wait before the next try where no connection can be accepted: no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection, of whatever kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn of(listening: Listening) -> io::Result<Self> {
        Ok(match listening {
            Listening::Tcp(listener, _) => Self::Tcp(TcpListener::from_std(listener)?),
            Listening::Unix(listener, _) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Serves until it is told to stop.
pub(super) async fn serve(listening: Vec<Listening>, shared: Arc<Shared>, stop: Arc<Notify>) {
    let room = Arc::new(Semaphore::new(shared.limits.connections));
    let mut accepting = JoinSet::new();
    for socket in listening {
        let name = socket.to_string();
        match Listener::of(socket) {
            Ok(listener) => drop(accepting.spawn(accept(listener, Arc::clone(&shared), Arc::clone(&room)))),
            Err(error) => eprintln!("septwatch: {name}: {error}"),
        }
    }
    stop.notified().await;
}

async fn accept(listener: Listener, shared: Arc<Shared>, room: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match (accepted, Arc::clone(&room).try_acquire_owned()) {
            (Ok(stream), Ok(place)) => {
                drop(connections.spawn(connection(stream, Arc::clone(&shared), place)))
            }
            (Ok(_), Err(_)) => Clients::count(&shared.clients.turned_away),
            // The peer has gone already, or there are no more descriptors: those of others may come back.
            (Err(_), _) => sleep(PAUSE).await,
        }
    }
}

async fn connection(stream: Box<dyn Stream>, shared: Arc<Shared>, _place: OwnedSemaphorePermit) {
    let gate = shared.gate();
    let Limits { head, whole, .. } = shared.limits;
    let served = async {
        match &gate.tls {
            None => http(stream, &shared, &gate).await,
            Some(tls) => match timeout(head, TlsAcceptor::from(Arc::clone(tls)).accept(stream)).await {
                Ok(Ok(stream)) => http(stream, &shared, &gate).await,
                Ok(Err(_)) => Ended::Broken,
                Err(_) => Ended::Late,
            },
        }
    };
    let ended = timeout(whole, served).await;
    shared.clients.ended(ended.unwrap_or(Ended::Late));
}

async fn http(stream: impl Stream, shared: &Shared, gate: &Gate) -> Ended {
    let Limits { head, write, kept, .. } = shared.limits;
    let begun = Instant::now();
    // Who never says anything is late; who says nothing more after an answer only keeps the connection.
    let heard = Arc::new(AtomicBool::new(true));
    let service = service_fn(|request| {
        let mut response = answer(&request, shared, gate);
        shared.clients.answered(response.status());
        heard.store(false, Ordering::Relaxed);
        if begun.elapsed() >= kept {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ready(Ok::<_, Infallible>(response))
    });
    let stream = TokioIo::new(Patient::new(stream, write, Arc::clone(&heard)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(LONGEST);
    match http.serve_connection(stream, service).await {
        Ok(()) => Ended::Well,
        Err(error) if stalled(&error) => Ended::Late,
        Err(error) if error.is_timeout() && !heard.load(Ordering::Relaxed) => Ended::Well,
        Err(error) if error.is_timeout() => Ended::Late,
        Err(_) => Ended::Broken,
    }
}

/// Whether the peer took nothing of an answer for too long.
fn stalled(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn answer(request: &Request<Incoming>, shared: &Shared, gate: &Gate) -> Response<Full<Bytes>> {
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if !gate.lets_in(authorization) {
        return plain(StatusCode::UNAUTHORIZED, Some((WWW_AUTHENTICATE, "Bearer")));
    }
    // Nobody reads a body here; what follows it would be taken for the next request.
    if !request.body().is_end_stream() {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, Some((CONNECTION, "close")));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, Some((ALLOW, "GET, HEAD")));
    }
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A page that panics is one answer less, not a server less.
    match catch_unwind(AssertUnwindSafe(|| shared.pages.page(request.uri().path(), accept))) {
        Ok(Some(page)) => page_of(page),
        Ok(None) => plain(StatusCode::NOT_FOUND, None),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, None),
    }
}

fn page_of(Page { status, content_type, body }: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    let known = (200..600).contains(&status).then(|| StatusCode::from_u16(status).ok()).flatten();
    *response.status_mut() = known.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn plain(status: StatusCode, header: Option<(HeaderName, &'static str)>) -> Response<Full<Bytes>> {
    let body = format!("{}\n", status.canonical_reason().unwrap_or("error"));
    let content_type = "text/plain; charset=utf-8";
    let mut response = page_of(Page { status: status.as_u16(), content_type, body: body.into_bytes() });
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
