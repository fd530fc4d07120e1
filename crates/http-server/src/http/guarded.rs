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

/// How long, and how many bytes of, a request that was refused unread are taken in before the
/// connection is closed. A close with unread bytes is a reset, and a reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// How the preface of HTTP/2 begins (RFC 9113, section 3.4); `PRI` is no method of HTTP/1.
const HTTP2: &[u8] = b"PRI ";

/// Where a connection stands between two requests: what its I/O cannot see by itself.
#[derive(Debug)]
pub(super) struct Phase {
    /// Requests whose head has been read.
    requested: AtomicU64,
    /// Requests whose answer has been given to its end.
    answered: AtomicU64,
    /// Requests whose answer has been written as well, and when the last was.
    written: AtomicU64,
    last_answer: LastTime,
    /// What becomes of a request body that is let go of before its end.
    left: Mutex<Left>,
    /// That has happened, and nobody has read the rest.
    unread_body: AtomicBool,
    /// Who gets the socket; known once the body of an answer has said all that it will here.
    take_over: OnceLock<TakeOver>,
    /// What it said has been written as well.
    flushed: AtomicBool,
    /// The client speaks HTTP/2, from the first byte.
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

    /// The answer's body has nothing more to say here: who is to have the socket once what was said
    /// has been written.
    pub(super) fn hold(&self, take_over: TakeOver) {
        // The first is the last: the connection is taken for it.
        self.take_over.get_or_init(|| take_over);
    }

    /// Everything that was written before has gone out. hyper flushes only when its own buffer is
    /// empty, and polls the body before it flushes.
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

    /// Who is to have the socket now.
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

    /// A request body was let go of before its end.
    pub(super) fn leave_body(&self, body: Incoming) {
        let mut left = self.lock_left();
        if matches!(*left, Left::Kept(None)) {
            *left = Left::Kept(Some(body));
        } else {
            self.note_unread_body();
        }
    }

    /// What is left of a body will not be read.
    pub(super) fn note_unread_body(&self) {
        self.unread_body.store(true, Ordering::Relaxed);
    }

    /// From here on a body that is let go of is kept.
    pub(super) fn keep_body(&self) {
        *self.lock_left() = Left::Kept(None);
    }

    /// The body that was kept, if there is one; others are not kept any more.
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

/// The times that a connection must keep.
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

/// What is being waited for from the client.
enum Waiting {
    /// A request head, at the latest by then.
    Head { until: Instant },
    /// The first byte of a next request, at the latest by then.
    Idle { until: Instant },
    /// A request is being answered; its body has its own time.
    Busy,
}

/// A connection whose client must keep moving: heads, the time between requests, and the taking of
/// what is written to it are bounded. Passing a time ends the connection with `TimedOut`.
pub(super) struct GuardedStream<S> {
    stream: S,
    /// What the client began with, if it is HTTP/2; `None` before it has begun.
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

    /// The stream, and what has been read of it and not passed on.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.beginning.unwrap_or_default())
    }

    /// Keeps the first bytes of the connection back if they are not HTTP/1.
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

    /// Notes which phase a read falls into. A whole request may have come and gone since the last.
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
                "the client takes nothing of what is sent to it",
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
            // Whoever polls the connection sees it, and nothing is read here any more.
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
                // hyper does not read again when the answer is given, as this read still waits: the
                // timer makes it, early enough to see how long the connection has been idle.
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
