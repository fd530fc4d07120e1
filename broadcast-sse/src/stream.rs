//! The body of a stream: what a listener gets, written as server-sent events.
//!
//! The seam for a faster writer: everything above it is [`Listener`], everything below it HTTP.

use std::{convert::Infallible, time::Duration};

use async_stream::stream;
use bytes::Bytes;
use chat_model::EventView;
use serde::Serialize;
use service_kit::lifecycle::Lifecycle;
use tokio_stream::Stream;

use crate::{
    frame,
    hub::{Entry, Hub, Listener, Sent},
    permit::StreamPermit,
};

/// Bytes that a stream takes from its listener at a time. What is taken is what one unfinished
/// write may hold.
const ROOM: usize = 16 * 1024;

/// How long a client waits before it reconnects after the connection broke: spread, so that those
/// whom one broken node sends away do not come back at the same moment.
const RETRY: std::ops::Range<u64> = 1_000..3_000;

/// The same when the node says good-bye because it stops.
const RETRY_AFTER_DRAIN: std::ops::Range<u64> = 500..4_000;

/// The same when the node cannot take the stream now.
const RETRY_WHEN_FULL: std::ops::Range<u64> = 10_000..30_000;

/// How the events of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the protocol has them.
    Events,
    /// As the older system had them: `data: {"id","userId","message"}` and nothing else but ids.
    Legacy,
}

/// The frames of a listener until it goes or the node stops; `permit` lives as long.
pub(crate) fn frames(
    mut listener: Listener,
    form: Form,
    hub: &Hub,
    lifecycle: &Lifecycle,
    permit: StreamPermit,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    let soft = lifecycle.soft();
    let mut pings = hub.pings();
    stream! {
        yield Ok(frame::retry(spread(RETRY)));
        loop {
            tokio::select! {
                biased;
                () = soft.cancelled() => {
                    yield Ok(frame::retry(spread(RETRY_AFTER_DRAIN)));
                    return;
                }
                Ok(()) = pings.changed() => yield Ok(frame::ping()),
                batch = listener.next(ROOM) => {
                    permit.count(&batch);
                    for sent in &batch {
                        for part in form.parts(sent) {
                            yield Ok(part);
                        }
                    }
                }
            }
        }
    }
}

/// What a client gets when the node cannot take its stream: a browser gives up for good on any
/// status but 200.
pub(crate) fn come_back_later() -> Bytes {
    frame::retry(spread(RETRY_WHEN_FULL))
}

fn spread(milliseconds: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rand::random_range(milliseconds))
}

impl Form {
    /// What is written, in one or two parts: the second is shared with other streams.
    fn parts(self, sent: &Sent) -> impl Iterator<Item = Bytes> + use<> {
        let parts = match (self, sent) {
            (Self::Events, Sent::Event(entry, None)) => [Some(entry.frame()), None],
            (Self::Events, Sent::Event(entry, Some(cursor))) => [
                Some(frame::id_line(cursor).into()),
                Some(entry.frame_without_id()),
            ],
            (_, Sent::Gap(gap, cursor)) => [Some(frame::gap(gap, cursor.as_deref())), None],
            (_, Sent::Ready(positions, cursor)) => [Some(frame::ready(positions, cursor)), None],
            (Self::Legacy, Sent::Event(entry, _)) => [legacy(entry), None],
        };
        parts.into_iter().flatten()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LegacyEvent<'a> {
    id: uuid::Uuid,
    user_id: Option<&'a str>,
    message: &'a str,
}

/// An event as the older system wrote it, which knew only messages with a text; the `id:` is
/// ours, so that its clients lose nothing when they reconnect.
fn legacy(entry: &Entry) -> Option<Bytes> {
    let line = entry.data();
    let event = EventView::parse(&line).ok()?;
    let data = LegacyEvent {
        id: event.id,
        user_id: event.from.id.as_deref(),
        message: event.text.as_deref()?,
    };
    let data = serde_json::to_string(&data).expect("strings always encode");
    Some(
        [&entry.id_line()[..], format!("data: {data}\n\n").as_bytes()]
            .concat()
            .into(),
    )
}
