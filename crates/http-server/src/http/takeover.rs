use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Version;
use axum::http::header::CONNECTION;
use axum::http::{Extensions, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::places::Place;

/// The framing of an answer's body of unknown length (RFC 9112, sections 6.3 and 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// HTTP/1.1: chunks; an empty chunk is the last.
    Chunked,
    /// HTTP/1.0: the bytes as they are, until the connection is closed.
    UntilClose,
}

/// Permission to take over the connection, in the extensions of every request that [`serve`] reads.
///
/// A handler that wants to write to one client for a long time can have the bare socket once the
/// answer's head is on its way. Then nothing of the HTTP server (tasks, buffers, timers) remains.
/// Requests that arrive in other ways carry no offer; their answers are ordinary bodies.
///
/// [`serve`]: super::serve
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The framing to use for what is written to the socket.
    pub framing: Framing,
}

/// A connection on which the answer's head and the first bytes of the body have been written. The new
/// owner writes the rest, ends it, and gives up when the client does not read.
#[derive(Debug)]
pub struct Taken {
    /// The socket, non-blocking, with the options that the server has set.
    pub socket: TcpStream,
    /// The client.
    pub peer: SocketAddr,
    /// Bytes that the client has sent after its request: the start of another request, which nobody will
    /// answer.
    pub unread: Bytes,
    /// The connection's place among those that the server allows. Hold it as long as the socket.
    pub place: Place,
}

type Take = Box<dyn FnOnce(Taken) + Send>;

/// In the extensions of an answer: who gets the socket. Nobody gets it if the client leaves first or
/// has asked only for the head.
#[derive(Clone)]
pub(super) struct TakeOver(Arc<Mutex<Option<Take>>>);

impl Offer {
    pub(super) fn of(version: Version) -> Self {
        let framing = if version == Version::HTTP_10 {
            Framing::UntilClose
        } else {
            Framing::Chunked
        };
        Self { framing }
    }

    /// The offer that came with a request; `None` if its socket cannot be taken over.
    pub fn get(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// Accepts the offer. `response` gets `first` as the beginning of its body; when all of that has been
    /// written, `take` is called. It runs on the connection's task and must not block.
    #[must_use]
    pub fn accept(
        self,
        response: Response,
        first: Bytes,
        take: impl FnOnce(Taken) + Send + 'static,
    ) -> Response {
        // A body that begins and then stays pending. Nothing needs to wake its task: the connection
        // checks whether the socket can be taken each time it has polled the body.
        let first = stream::iter((!first.is_empty()).then_some(Ok::<_, Infallible>(first)));
        let held = Body::from_stream(first.chain(stream::pending()));
        let mut response = response.map(|_| held);
        // Nobody will read what the client sends after this request (RFC 9112, section 9.6).
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let take: Take = Box::new(take);
        let take_over = TakeOver(Arc::new(Mutex::new(Some(take))));
        response.extensions_mut().insert(take_over);
        response
    }
}

impl TakeOver {
    pub(super) fn run(&self, taken: Taken) {
        let take = self.0.lock().take();
        if let Some(take) = take {
            take(taken);
        }
    }
}

impl fmt::Debug for TakeOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakeOver").finish_non_exhaustive()
    }
}
