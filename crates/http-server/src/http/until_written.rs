use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Error;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// The same answer. `held` is dropped when all of the body has been written, or the client has left.
///
/// HTTP/2 reads a body faster than the client does, and buffers what does not fit into the client's
/// window. Therefore the bytes themselves hold `held`, not the body that they come from.
pub fn until_written<T: Send + Sync + 'static>(answer: Response, held: T) -> Response {
    let held = Arc::new(held);
    answer.map(|inner| Body::new(HoldingBody { inner, held }))
}

struct HoldingBody<T> {
    inner: Body,
    held: Arc<T>,
}

struct HoldingBytes<T> {
    bytes: Bytes,
    _held: Arc<T>,
}

impl<T> AsRef<[u8]> for HoldingBytes<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T: Send + Sync + 'static> HttpBody for HoldingBody<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let hold = |bytes| {
            let _held = Arc::clone(&this.held);
            Bytes::from_owner(HoldingBytes { bytes, _held })
        };
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        frame.map_ok(|frame| frame.map_data(hold))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
