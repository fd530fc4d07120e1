use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::HttpOptions;
use super::deadline::Deadline;
use super::last_time::LastTime;
use super::places::Idleness;
use super::takeover::TakeOver;

/// How much of a request that was refused unread is still read before the connection is closed, in time
/// and in bytes. Closing with unread bytes sends a reset, which can overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// The beginning of the HTTP/2 preface (RFC 9113, section 3.4). HTTP/1 has no method `PRI`.
const HTTP2: &[u8] = b"PRI ";

/// The state of a connection between requests that its I/O cannot see by itself.
#[derive(Debug)]
pub(super) struct Phase {
    /// Requests whose head has been read.
    requested: AtomicU64,
    /// Requests whose answer has been produced completely.
    answered: AtomicU64,
    /// Requests whose answer has also been written, and when the last one was.
    written: AtomicU64,
    last_answer: LastTime,
    /// What happens to a request body that is dropped before its end.
    left: Mutex<Left>,
    /// A body was dropped before its end, and nobody has read the rest.
    unread_body: AtomicBool,
    /// Who gets the socket; set once an answer's body has produced all that is written here.
    take_over: OnceLock<TakeOver>,
    /// What that body produced has also been written.
    flushed: AtomicBool,
    /// The client speaks HTTP/2 from the first byte.
    http2: AtomicBool,
}

#[derive(Debug)]
enum Left {
    Dropped,
    Kept(Option<Incoming>),
}

impl Phase {
    pub(super) fn new() -> Self {
        Self {
            requested: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            written: AtomicU64::new(0),
            last_answer: LastTime::now(),
            left: Mutex::new(Left::Dropped),
            unread_body: AtomicBool::new(false),
            take_over: OnceLock::new(),
            flushed: AtomicBool::new(false),
            http2: AtomicBool::new(false),
        }
    }

    /// The answer's body has ended here. `take_over` gets the socket once everything has been written.
    pub(super) fn hold(&self, take_over: TakeOver) {
        // Only the first counts: it takes the connection.
        self.take_over.get_or_init(|| take_over);
    }

    /// Everything written so far has been sent: hyper flushes only when its own buffer is empty, and
    /// polls the body before it flushes.
    fn flushed(&self) {
        let answered = self.answered.load(Ordering::Relaxed);
        if self.written.load(Ordering::Relaxed) != answered {
            self.last_answer.note();
            self.written.store(answered, Ordering::Relaxed);
        }
        if self.take_over.get().is_some() {
            self.flushed.store(true, Ordering::Relaxed);
        }
    }

    /// Who gets the socket now, if anyone.
    pub(super) fn released(&self) -> Option<&TakeOver> {
        let flushed = self.flushed.load(Ordering::Relaxed);
        flushed.then(|| self.take_over.get()).flatten()
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    pub(super) fn requested(&self) {
        self.requested.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// A request body was dropped before its end.
    pub(super) fn leave_body(&self, body: Incoming) {
        let mut left = self.lock_left();
        if matches!(*left, Left::Kept(None)) {
            *left = Left::Kept(Some(body));
        } else {
            self.note_unread_body();
        }
    }

    /// The rest of a body will not be read.
    pub(super) fn note_unread_body(&self) {
        self.unread_body.store(true, Ordering::Relaxed);
    }

    /// From now on, a body that is dropped is kept.
    pub(super) fn keep_body(&self) {
        *self.lock_left() = Left::Kept(None);
    }

    /// The body that was kept, if any. Later bodies are no longer kept.
    pub(super) fn kept_body(&self) -> Option<Incoming> {
        match std::mem::replace(&mut *self.lock_left(), Left::Dropped) {
            Left::Kept(body) => body,
            Left::Dropped => None,
        }
    }

    fn lock_left(&self) -> MutexGuard<'_, Left> {
        self.left.lock()
    }

    fn answers(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.requested.load(Ordering::Relaxed) != self.answers()
    }
}

impl Idleness for Phase {
    fn idle_since(&self) -> Option<Instant> {
        let busy = self.is_busy() || self.take_over.get().is_some();
        (!busy).then(|| self.last_answer.at())
    }
}

/// The time limits of a connection.
#[derive(Clone, Debug)]
pub(super) struct Times {
    header: Duration,
    idle: Duration,
    write_stall: Duration,
    stalled: Counter,
}

impl From<&HttpOptions> for Times {
    fn from(options: &HttpOptions) -> Self {
        Self {
            header: options.header_timeout,
            idle: options.idle_timeout,
            write_stall: options.write_stall,
            stalled: options.stalled.clone(),
        }
    }
}

/// What the connection is waiting for.
enum Waiting {
    /// A request head, which must arrive by then.
    Head { until: Instant },
    /// The first byte of the next request, which must arrive by then.
    Idle { until: Instant },
    /// A request is being answered; its body has its own time limit.
    Busy,
}

/// A connection with time limits for request heads, for the pause between requests, and for reading
/// what is written to the client. Exceeding one ends the connection with `TimedOut`.
pub(super) struct GuardedStream<S> {
    stream: S,
    /// The first bytes, if they are HTTP/2; `None` until the client has sent some.
    beginning: Option<Bytes>,
    phase: Arc<Phase>,
    times: Times,
    waiting: Waiting,
    answers_seen: u64,
    head: Deadline,
    stalled_since: Option<Instant>,
    stall: Deadline,
    linger: Option<Linger>,
}

struct Linger {
    until: Instant,
    bytes_left: usize,
    timer: Deadline,
}

impl<S> GuardedStream<S> {
    pub(super) fn new(stream: S, phase: Arc<Phase>, times: Times) -> Self {
        Self {
            stream,
            beginning: None,
            waiting: Waiting::Head {
                until: Instant::now() + times.header,
            },
            phase,
            times,
            answers_seen: 0,
            head: Deadline::default(),
            stalled_since: None,
            stall: Deadline::default(),
            linger: None,
        }
    }

    /// The stream, and the bytes that were read from it but not passed on.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.beginning.unwrap_or_default())
    }

    /// Holds back the first bytes of the connection if they are not HTTP/1.
    fn keep_http2(&mut self, read: &[u8]) -> bool {
        if self.beginning.is_some() || read.is_empty() {
            return false;
        }
        let http2 = read.starts_with(HTTP2);
        self.beginning = Some(if http2 {
            Bytes::copy_from_slice(read)
        } else {
            Bytes::new()
        });
        if http2 {
            self.phase.http2.store(true, Ordering::Relaxed);
        }
        http2
    }

    /// Notes which phase a read falls into. A whole request may have come and gone since the last read.
    fn before_read(&mut self) {
        if self.phase.is_busy() {
            self.waiting = Waiting::Busy;
        } else if self.phase.answers() != self.answers_seen {
            self.answers_seen = self.phase.answers();
            self.waiting = Waiting::Idle {
                until: self.phase.last_answer.at() + self.times.idle,
            };
        }
    }

    fn write_result<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled_since = None;
            return result;
        }
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        if self.stall.passed(cx, since + self.times.write_stall) {
            self.times.stalled.inc();
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client does not read what is sent to it",
            )));
        }
        Poll::Pending
    }

    /// Whether the client may still be sending a request that nobody will read.
    fn has_unread_request(&self) -> bool {
        self.phase.unread_body.load(Ordering::Relaxed)
            || (matches!(self.waiting, Waiting::Head { .. }) && !self.phase.is_busy())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.before_read();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if this.keep_http2(&buffer.filled()[before..]) {
            // The poller of the connection sees it; nothing more is read here.
            buffer.set_filled(before);
            return Poll::Pending;
        }
        match (&this.waiting, &result) {
            (Waiting::Idle { .. }, Poll::Ready(Ok(()))) => {
                this.waiting = Waiting::Head {
                    until: Instant::now() + this.times.header,
                };
                result
            }
            (Waiting::Head { until } | Waiting::Idle { until }, Poll::Pending) => {
                if this.head.passed(cx, *until) {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "no request came in time",
                    )));
                }
                Poll::Pending
            }
            (Waiting::Busy, Poll::Pending) => {
                // This read is still pending, so hyper does not read again after the answer. The timer
                // makes it read, early enough to see how long the connection has been idle.
                let _wakes_the_task = this.head.passed(cx, Instant::now() + this.times.idle);
                Poll::Pending
            }
            _ => result,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.write_result(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.write_result(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        ready!(self.write_result(cx, result))?;
        self.phase.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.has_unread_request() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            until: Instant::now() + LINGER,
            bytes_left: LINGER_BYTES,
            timer: Deadline::default(),
        });
        let mut scratch = [0_u8; 4096];
        while linger.bytes_left > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    linger.bytes_left = linger.bytes_left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_end_or_error) => break,
                Poll::Pending if linger.timer.passed(cx, linger.until) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}
