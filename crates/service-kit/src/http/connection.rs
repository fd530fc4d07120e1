use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use super::HttpOptions;
use super::body::{AnswerBody, TimedBody};
use super::guarded::{GuardedStream, Phase, Times};
use super::takeover::{Offer, Place, TakeOver, Taken};

/// Answers the requests of one connection until it ends, an answer takes it over, `soft` lets it end
/// after the request under way, or `hard` drops it.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    router: Router,
    options: Arc<HttpOptions>,
    soft: CancellationToken,
    hard: CancellationToken,
) {
    let phase = Arc::new(Phase::new());
    let guarded = GuardedStream::new(stream, Arc::clone(&phase), Times::from(&*options));
    let body_timeout = options.body_timeout;
    let requested = Arc::clone(&phase);
    let service = service_fn(move |request: Request<Incoming>| {
        requested.requested();
        let phase = Arc::clone(&requested);
        let mut request =
            request.map(|body| Body::new(TimedBody::new(body, Arc::clone(&phase), body_timeout)));
        let offer = Offer::of(request.version());
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(peer));
        extensions.insert(offer);
        let answer = router.clone().oneshot(request);
        async move {
            let mut response: Response<Body> = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let take_over = response.extensions_mut().remove::<TakeOver>();
            Ok::<_, Infallible>(response.map(|body| AnswerBody::new(body, phase, take_over)))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The guarded stream knows idle connections from slow heads; hyper's timer does not.
        .header_read_timeout(None)
        .max_buf_size(options.max_head_bytes)
        .serve_connection(TokioIo::new(guarded), service);
    let mut draining = false;
    let result = loop {
        let progress = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(result) => Poll::Ready(Err(result)),
            Poll::Pending => phase
                .released()
                .map_or(Poll::Pending, |take_over| Poll::Ready(Ok(take_over))),
        });
        tokio::select! {
            progress = progress => match progress {
                Ok(take_over) => {
                    let parts = connection.into_parts();
                    let socket = parts.io.into_inner().into_inner();
                    return take_over.run(Taken { socket, peer, unread: parts.read_buf, place });
                }
                Err(result) => break result,
            },
            () = hard.cancelled() => return,
            () = soft.cancelled(), if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        // Clients go away in many ways, none of which needs anybody's attention.
        debug!(%peer, %error, cause = ?std::error::Error::source(&error), "connection ended");
    }
}
