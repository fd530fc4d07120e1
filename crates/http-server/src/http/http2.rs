//! One HTTP/2 connection (RFC 9113): many requests at a time, including event streams.

mod frames;
mod stream;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::HOST;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use service_kit::log_limit::LogLimit;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tower::ServiceExt;
use tracing::{debug, info};

use super::body::TimedBody;
use super::last_time::LastTime;
use super::places::{Idleness, TO_LEAVE};
use super::visit::Visit;
use stream::HeardStream;

/// The most requests at a time on one connection. For more, clients wait or open another connection.
const MOST_STREAMS: u32 = 250;
/// The most bytes of one answer that wait for the client's window. This is the most that an event
/// stream to a slow client costs here.
const MOST_WAITING: usize = 64 * 1024;
/// How often a connection checks whether it is idle or stuck.
const LOOK_EVERY: Duration = Duration::from_secs(5);

static FLOODED: LogLimit = LogLimit::per_minute(5);

/// Answers the requests of a connection until it ends. After the soft token it ends after the requests
/// under way; the hard token drops it. It also ends when it is idle, when the client does not answer
/// pings, or when the client reads nothing of any of its answers. `beginning` holds the bytes already
/// read from the stream.
pub(super) async fn run<S>(stream: S, beginning: Bytes, visit: Visit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Visit {
        peer,
        place,
        router,
        options,
        soft,
        hard,
        give_way,
    } = visit;
    let heard = Arc::new(Heard {
        last: LastTime::now(),
        flooded: AtomicBool::new(false),
    });
    let stream = HeardStream::new(beginning, stream, Arc::clone(&heard));
    let answers = Arc::new(Answers::new());
    place.watch(answers.clone());
    let counted = Arc::clone(&answers);
    let body_timeout = options.body_timeout;
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| Body::new(TimedBody::new(body, None, body_timeout)));
        name_host(&mut request);
        request.extensions_mut().insert(ConnectInfo(peer));
        let open = Open::new(Arc::clone(&counted));
        let answer = router.clone().oneshot(request);
        async move {
            let response: Response<Body> = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            Ok::<_, Infallible>(response.map(|body| WatchedBody::new(body, open)))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_send_buf_size(MOST_WAITING)
        .max_header_list_size(u32::try_from(options.max_head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(options.ping_every)
        // The check below comes first: it can tell whether there were answers.
        .keep_alive_timeout(2 * options.write_stall + 2 * LOOK_EVERY)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut look = interval(
        LOOK_EVERY
            .min(options.write_stall)
            .min(options.idle_timeout),
    );
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = false;
    let mut giving_way = false;
    // When a connection that gives way must have ended.
    let mut leave_at = None;
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            () = hard.cancelled() => return,
            () = give_way.cancelled(), if !giving_way => {
                giving_way = true;
                draining = true;
                leave_at = Some(Instant::now() + TO_LEAVE);
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(leave_at.unwrap_or_else(Instant::now)), if leave_at.is_some() => {
                leave_at = None;
                // If not, a request arrived at that moment: it is answered, as the last one.
                if answers.open.load(Relaxed) == 0 {
                    return;
                }
            }
            () = soft.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = look.tick() => {
                if heard.last.elapsed() > options.ping_every + options.write_stall {
                    if answers.begun_bodies.load(Relaxed) > 0 {
                        options.stalled.inc();
                    }
                    debug!(%peer, "the client does not answer pings");
                    return;
                }
                if answers.stuck_for() > options.write_stall {
                    options.stalled.inc();
                    debug!(%peer, "the client does not read what is sent to it");
                    return;
                }
                if !draining && answers.idle_for() > options.idle_timeout {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    };
    if heard.flooded.load(Relaxed) {
        if let Some(left_out) = FLOODED.line() {
            info!(left_out, %peer, "too many useless HTTP/2 frames: connection ended");
        }
    } else if let Err(error) = result {
        // Clients leave in many ways, none of which needs attention.
        debug!(%peer, %error, cause = ?std::error::Error::source(&error), "connection ended");
    }
}

/// What has been received from a client.
struct Heard {
    /// When it last sent anything.
    last: LastTime,
    /// It sent too many useless frames.
    flooded: AtomicBool,
}

/// Copies `:authority` to `Host`, where handlers look for it (RFC 9113, section 8.3.1).
fn name_host(request: &mut Request<Body>) {
    if request.headers().contains_key(HOST) {
        return;
    }
    let named = request.uri().authority().map(|name| name.as_str().parse());
    if let Some(Ok(host)) = named {
        request.headers_mut().insert(HOST, host);
    }
}

/// The state of a connection's answers.
struct Answers {
    /// Requests under way.
    open: AtomicUsize,
    /// Answers whose bodies have begun.
    begun_bodies: AtomicUsize,
    /// Those of them that had nothing to send when they were last polled. The others wait until the
    /// client reads.
    silent: AtomicUsize,
    /// When a request last began or ended, or a body was polled.
    moved: LastTime,
}

impl Answers {
    fn new() -> Self {
        Self {
            open: AtomicUsize::new(0),
            begun_bodies: AtomicUsize::new(0),
            silent: AtomicUsize::new(0),
            moved: LastTime::now(),
        }
    }

    /// How long there has been no request under way.
    fn idle_for(&self) -> Duration {
        if self.open.load(Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.moved.elapsed()
    }

    /// How long there have been answers that the client does not read. An answer with nothing to send
    /// does not mean that the client is stuck.
    fn stuck_for(&self) -> Duration {
        let bodies = self.begun_bodies.load(Relaxed);
        if bodies == 0 || self.silent.load(Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.moved.elapsed()
    }
}

impl Idleness for Answers {
    fn idle_since(&self) -> Option<Instant> {
        (self.open.load(Relaxed) == 0).then(|| self.moved.at())
    }
}

/// A request under way.
struct Open(Arc<Answers>);

impl Open {
    fn new(answers: Arc<Answers>) -> Self {
        answers.open.fetch_add(1, Relaxed);
        answers.moved.note();
        Self(answers)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.moved.note();
    }
}

/// An answer's body that records whether it waits for content or for the client.
struct WatchedBody {
    inner: Body,
    open: Open,
    silent: bool,
}

impl WatchedBody {
    fn new(inner: Body, open: Open) -> Self {
        open.0.begun_bodies.fetch_add(1, Relaxed);
        Self {
            inner,
            open,
            silent: false,
        }
    }

    fn set_silent(&mut self, silent: bool) {
        let count = &self.open.0.silent;
        match (self.silent, silent) {
            (false, true) => count.fetch_add(1, Relaxed),
            (true, false) => count.fetch_sub(1, Relaxed),
            _ => return,
        };
        self.silent = silent;
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        self.set_silent(frame.is_pending());
        self.open.0.moved.note();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.set_silent(false);
        self.open.0.begun_bodies.fetch_sub(1, Relaxed);
    }
}
