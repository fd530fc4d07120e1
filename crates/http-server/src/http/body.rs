use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::guarded::Phase;
use super::takeover::TakeOver;

/// A request body that must arrive within a time limit, counted from the first read.
pub(super) struct TimedBody {
    /// `Some` until this is dropped.
    inner: Option<Incoming>,
    /// Only for HTTP/1, where the next request follows this body.
    phase: Option<Arc<Phase>>,
    limit: Duration,
    until: Option<Instant>,
    timer: Deadline,
    ended: bool,
}

impl TimedBody {
    pub(super) fn new(inner: Incoming, phase: Option<Arc<Phase>>, limit: Duration) -> Self {
        Self {
            inner: Some(inner),
            phase,
            limit,
            until: None,
            timer: Deadline::default(),
            ended: false,
        }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            this.ended = frame.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = this.limit;
        let until = *this.until.get_or_insert_with(|| Instant::now() + limit);
        if this.timer.passed(cx, until) {
            let slow = io::Error::new(io::ErrorKind::TimedOut, "the request body took too long");
            return Poll::Ready(Some(Err(slow.into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        // A chunked body knows its end only after it has been read completely.
        if self.ended || self.is_end_stream() {
            return;
        }
        if let (Some(phase), Some(inner)) = (&self.phase, self.inner.take()) {
            phase.leave_body(inner);
        }
    }
}

/// An answer's body. The request ends when the body does; once that is written, the connection is idle.
pub(super) struct AnswerBody {
    inner: Body,
    phase: Arc<Phase>,
    /// Who gets the socket after the body's last bytes.
    take_over: Option<TakeOver>,
}

impl AnswerBody {
    pub(super) fn new(inner: Body, phase: Arc<Phase>, take_over: Option<TakeOver>) -> Self {
        Self {
            inner,
            phase,
            take_over,
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if frame.is_pending()
            && let Some(take_over) = self.take_over.take()
        {
            self.phase.hold(take_over);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.phase.answered();
    }
}
