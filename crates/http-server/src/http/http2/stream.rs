use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Heard;
use super::frames::FrameBudget;

/// A stream whose first bytes may have been read already to recognise the protocol; it returns them
/// again. It records when the client last sent anything, and fails when too many frames are useless.
pub(super) struct HeardStream<S> {
    beginning: Bytes,
    stream: S,
    heard: Arc<Heard>,
    budget: FrameBudget,
}

impl<S> HeardStream<S> {
    pub(super) fn new(beginning: Bytes, stream: S, heard: Arc<Heard>) -> Self {
        Self {
            beginning,
            stream,
            heard,
            budget: FrameBudget::new(),
        }
    }

    /// Charges for the frames in the bytes that were read.
    fn pay_for(&mut self, read: &[u8]) -> io::Result<()> {
        if self.budget.pay_for(read) {
            return Ok(());
        }
        self.heard.flooded.store(true, Relaxed);
        Err(io::Error::other("too many useless frames"))
    }

    fn earn(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.budget.earn(*bytes as u64);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeardStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.beginning.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            this.heard.last.note();
        } else {
            let length = this.beginning.len().min(buffer.remaining());
            buffer.put_slice(&this.beginning[..length]);
            this.beginning.advance(length);
        }
        Poll::Ready(this.pay_for(&buffer.filled()[before..]))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeardStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.earn(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.earn(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
