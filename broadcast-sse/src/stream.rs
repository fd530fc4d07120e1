//! [`EventStream`]: writes what a listener gets as server-sent events.
//!
//! Its bytes reach the client through a [writer](crate::writers), or as an ordinary body if the socket
//! cannot be taken over.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use chat_model::EventView;
use http_server::http::Framing;
use serde::Serialize;
use service_kit::lifecycle::Lifecycle;
use tokio::sync::{Notify, watch};
use tokio_stream::Stream;

use crate::frame::{self, EventFrame};
use crate::hub::{Entry, Listener, Sent};
use crate::open_streams::StreamPlace;
use crate::writers::{Flow, Source};

/// How many bytes a stream takes from its listener at a time. This limits the size of an unfinished write.
pub(crate) const ROOM: usize = 32 * 1024;

/// How many bytes a client may send after its request: as many as one more request head.
const UNASKED: usize = 32 * 1024;

/// How long a client waits before it reconnects after the connection broke, in milliseconds. It is random,
/// so that the clients of one broken node do not return at the same moment.
const RETRY: std::ops::Range<u64> = 1_000..3_000;

/// The same, when the node ends streams because it stops.
const RETRY_AFTER_DRAIN: std::ops::Range<u64> = 500..4_000;

/// The same, when the node cannot accept the stream now.
const RETRY_WHEN_FULL: std::ops::Range<u64> = 10_000..30_000;

/// How the events of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As in the protocol.
    Events,
    /// As in the older system: only `data: {"id","userId","message"}` and ids.
    Legacy,
}

/// A listener's events, ready to be written. The stream counts as open until this is dropped.
pub(crate) struct EventStream {
    listener: Listener,
    form: Form,
    framing: Framing,
    /// How many bytes the client has sent after its request.
    unasked: usize,
    _place: StreamPlace,
}

impl EventStream {
    pub(crate) fn new(listener: Listener, form: Form, place: StreamPlace) -> Self {
        Self {
            listener,
            form,
            framing: Framing::UntilClose,
            unasked: 0,
            _place: place,
        }
    }

    /// The beginning of a stream, without framing: a ping with `retry:`, and what is there.
    pub(crate) fn beginning(&mut self) -> Bytes {
        let mut parts = vec![frame::ping_with_retry(spread(RETRY))];
        // An event stream does not end by itself.
        let _on = self.next(&mut parts);
        parts.concat().into()
    }

    /// Sets the framing of its bytes from now on.
    pub(crate) fn framed(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// The stream as a body that lasts until the client leaves or the node stops. `waker` is the listener's.
    pub(crate) fn into_body(
        mut self,
        waker: Arc<Notify>,
        mut pings: watch::Receiver<u64>,
        lifecycle: &Lifecycle,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
        let soft = lifecycle.soft();
        stream! {
            yield Ok(self.beginning());
            let mut parts = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    () = soft.cancelled() => {
                        yield Ok(self.last_words());
                        return;
                    }
                    Ok(()) = pings.changed() => yield Ok(self.ping()),
                    // The waker remembers notifications, so what arrived since the last look is not missed.
                    () = waker.notified() => {
                        let flow = self.next(&mut parts);
                        for part in parts.drain(..) {
                            yield Ok(part);
                        }
                        if flow == Flow::Over {
                            return;
                        }
                    }
                }
            }
        }
    }
}

impl Source for EventStream {
    fn next(&mut self, parts: &mut Vec<Bytes>) -> Flow {
        let batch = self.listener.take(ROOM);
        for sent in &batch {
            self.form.write(sent, self.framing, parts);
        }
        Flow::On
    }

    /// The client is not expected to send anything; one that sends too much is disconnected.
    fn receive(&mut self, bytes: &[u8]) -> Flow {
        self.unasked += bytes.len();
        match self.unasked > UNASKED {
            true => Flow::Over,
            false => Flow::On,
        }
    }

    fn ping(&self) -> Bytes {
        frame::ping(self.framing)
    }

    fn last_words(&self) -> Bytes {
        let retry = frame::ping_with_retry(spread(RETRY_AFTER_DRAIN));
        match self.framing {
            Framing::Chunked => [&frame::chunk(&retry)[..], frame::LAST_CHUNK]
                .concat()
                .into(),
            Framing::UntilClose => retry,
        }
    }
}

/// The body for a client whose stream the node cannot accept. It is sent with 200, because a browser gives
/// up for good on any other status.
pub(crate) fn come_back_later() -> Bytes {
    frame::ping_with_retry(spread(RETRY_WHEN_FULL))
}

fn spread(milliseconds: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rand::random_range(milliseconds))
}

impl Form {
    /// Appends what is to be written. Bytes shared with other streams and the stream's own are separate
    /// parts.
    fn write(self, sent: &Sent, framing: Framing, parts: &mut Vec<Bytes>) {
        let chunked = framing == Framing::Chunked;
        let frame = match (self, sent) {
            (Self::Events, Sent::Event(entry, None)) => {
                return parts.push(if chunked {
                    EventFrame(entry.encoded()).chunk()
                } else {
                    EventFrame(entry.encoded()).frame()
                });
            }
            (Self::Events, Sent::Event(entry, Some(cursor))) if chunked => {
                let shared = EventFrame(entry.encoded()).chunk_without_id();
                let begin = frame::chunk_with_id(cursor, &shared);
                return parts.extend([begin, shared]);
            }
            (Self::Events, Sent::Event(entry, Some(cursor))) => {
                return parts.extend([
                    frame::id_line(cursor).into(),
                    EventFrame(entry.encoded()).frame_without_id(),
                ]);
            }
            (_, Sent::Gap(gap, cursor)) => Some(frame::gap(gap, cursor.as_deref())),
            (_, Sent::Ready(positions, cursor)) => Some(frame::ready(positions, cursor)),
            (Self::Legacy, Sent::Event(entry, _)) => legacy(entry),
        };
        parts.extend(frame.map(|frame| if chunked { frame::chunk(&frame) } else { frame }));
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LegacyEvent<'a> {
    id: uuid::Uuid,
    user_id: Option<&'a str>,
    message: &'a str,
}

/// An event as the older system wrote it; that system had only messages with a text. The `id:` is Hark's,
/// so that clients lose nothing when they reconnect.
fn legacy(entry: &Entry) -> Option<Bytes> {
    let line = entry.line();
    // Its head was readable, or it would not be here. If the rest is not, there is no text to show.
    let event = EventView::parse(&line).ok()?;
    let data = LegacyEvent {
        id: event.id,
        user_id: event.from.id.as_deref(),
        message: event.text.as_deref()?,
    };
    let data = serde_json::to_string(&data).expect("strings always encode");
    Some(
        [
            &EventFrame(entry.encoded()).id_line()[..],
            format!("data: {data}\n\n").as_bytes(),
        ]
        .concat()
        .into(),
    )
}
