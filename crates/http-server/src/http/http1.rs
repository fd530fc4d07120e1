use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::EXPECT;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;
use tracing::debug;

use super::body::{AnswerBody, TimedBody};
use super::guarded::{GuardedStream, Phase, Times};
use super::places::Idleness;
use super::takeover::{Offer, TakeOver, Taken};
use super::unread;
use super::visit::Visit;

/// A stream that a connection can run on.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The bare socket, if nothing lies between it and HTTP.
    fn into_socket(self) -> Option<TcpStream>;
    /// Whether this is a bare socket.
    const IS_SOCKET: bool;
}

impl Transport for TcpStream {
    fn into_socket(self) -> Option<TcpStream> {
        Some(self)
    }
    const IS_SOCKET: bool = true;
}

impl Transport for TlsStream<TcpStream> {
    fn into_socket(self) -> Option<TcpStream> {
        None
    }
    const IS_SOCKET: bool = false;
}

/// Answers the requests of one connection until it ends or an answer takes it over. After the soft
/// token it ends after the request under way; the hard token drops it. If the client speaks HTTP/2, the
/// connection is returned to the caller, with the bytes received so far.
pub(super) async fn run<S: Transport>(stream: S, visit: Visit) -> Option<(S, Bytes, Visit)> {
    let Visit {
        peer,
        place,
        router,
        options,
        soft,
        hard,
        give_way,
    } = visit;
    let phase = Arc::new(Phase::new());
    place.watch(phase.clone());
    let guarded = GuardedStream::new(stream, Arc::clone(&phase), Times::from(&*options));
    let body_timeout = options.body_timeout;
    let requested = Arc::clone(&phase);
    let answering = router.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        requested.requested();
        let phase = Arc::clone(&requested);
        let mut request = request
            .map(|body| Body::new(TimedBody::new(body, Some(Arc::clone(&phase)), body_timeout)));
        let has_body = !request.body().is_end_stream();
        if has_body {
            phase.keep_body();
        }
        let expects = request.headers().contains_key(EXPECT);
        let offer = S::IS_SOCKET.then(|| Offer::of(request.version()));
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(peer));
        if let Some(offer) = offer {
            extensions.insert(offer);
        }
        let answer = answering.clone().oneshot(request);
        async move {
            let mut response: Response<Body> = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if has_body && let Some(body) = phase.kept_body() {
                unread::settle(body, expects, &mut response, &phase).await;
            }
            let take_over = response.extensions_mut().remove::<TakeOver>();
            Ok::<_, Infallible>(response.map(|body| AnswerBody::new(body, phase, take_over)))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The guarded stream can tell idle connections from slow heads; hyper's timer cannot.
        .header_read_timeout(None)
        .max_buf_size(options.max_head_bytes)
        .serve_connection(TokioIo::new(guarded), service);
    let mut draining = false;
    let mut giving_way = false;
    let result = loop {
        let progress = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(result) => Poll::Ready(Progress::Ended(result)),
            Poll::Pending if phase.is_http2() => Poll::Ready(Progress::Http2),
            Poll::Pending => phase.released().map_or(Poll::Pending, |take_over| {
                Poll::Ready(Progress::Released(take_over))
            }),
        });
        tokio::select! {
            progress = progress => match progress {
                Progress::Released(take_over) => {
                    let parts = connection.into_parts();
                    let (stream, _) = parts.io.into_inner().into_parts();
                    if let Some(socket) = stream.into_socket() {
                        take_over.run(Taken { socket, peer, unread: parts.read_buf, place: place.keep() });
                    }
                    return None;
                }
                Progress::Http2 => {
                    let (stream, beginning) = connection.into_parts().io.into_inner().into_parts();
                    let visit = Visit { peer, place, router, options, soft, hard, give_way };
                    return Some((stream, beginning, visit));
                }
                Progress::Ended(result) => break result,
            },
            () = hard.cancelled() => return None,
            () = give_way.cancelled(), if !giving_way => {
                giving_way = true;
                if phase.idle_since().is_some() {
                    return None;
                }
                // A request arrived at this moment: it is answered, as the last one.
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = soft.cancelled(), if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        // Clients leave in many ways, none of which needs attention.
        debug!(%peer, %error, cause = ?std::error::Error::source(&error), "connection ended");
    }
    None
}

/// The result of polling a connection.
enum Progress<'a> {
    Ended(hyper::Result<()>),
    Released(&'a TakeOver),
    Http2,
}
