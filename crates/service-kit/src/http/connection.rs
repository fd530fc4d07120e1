use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

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

/// Answers the requests of one connection until it ends, `soft` lets it end after the request under
/// way, or `hard` drops it.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    options: Arc<HttpOptions>,
    soft: CancellationToken,
    hard: CancellationToken,
) {
    let phase = Arc::new(Phase::new());
    let guarded = GuardedStream::new(stream, Arc::clone(&phase), Times::from(&*options));
    let body_timeout = options.body_timeout;
    let service = service_fn(move |request: Request<Incoming>| {
        phase.requested();
        let phase = Arc::clone(&phase);
        let mut request =
            request.map(|body| Body::new(TimedBody::new(body, Arc::clone(&phase), body_timeout)));
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().oneshot(request);
        async move {
            let response: Response<Body> = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Ok::<_, Infallible>(response.map(|body| AnswerBody::new(body, phase)))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // The guarded stream knows idle connections from slow heads; hyper's timer does not.
            .header_read_timeout(None)
            .max_buf_size(options.max_head_bytes)
            .serve_connection(TokioIo::new(guarded), service)
    );
    let mut draining = false;
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            () = hard.cancelled() => return,
            () = soft.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        // Clients go away in many ways, none of which needs anybody's attention.
        debug!(%peer, %error, cause = ?std::error::Error::source(&error), "connection ended");
    }
}
