//! Writes streams directly to their sockets, which were taken over from the HTTP server after the head.
//!
//! A few shards, one for each processor, share all streams. A shard is one task with a queue of the
//! streams that have something to do. A waiting stream costs its socket, its [`Source`] and some hundred
//! bytes; it has no task, no timer and no buffer.
//!
//! - When its waker is called, a stream is asked once for what is next, and all of that is written at
//!   once. It is never asked while it has an *unfinished write*: the rest of what the kernel did not
//!   accept. It has at most one.
//! - The reactor calls the shard when a client sends or closes, and when a socket that would have
//!   blocked has room.
//! - A client that reads nothing for the time allowed is dropped. So is one that closes its side, because
//!   a closed tab looks the same. What a client sends goes to the source, which may end the stream because
//!   of it, or after any turn.
//! - At shutdown each stream is asked for its last words and then ends, at the latest at the hard end.
//! - After a slice of streams, other tasks have a turn, so that a crowd of listeners does not hold up the
//!   rest of the process.

mod outlet;
mod shard;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use bytes::Bytes;
use http_server::http::Taken;
use prometheus_client::metrics::counter::Counter;
use service_kit::lifecycle::Lifecycle;
use tokio::sync::watch;

use crate::hub::Waker;
use outlet::Outlet;
use shard::{Call, Shard, Worker};

/// Produces what is written to one socket.
pub(crate) trait Source: Send + 'static {
    /// Appends what is next, if there is anything. If there is more than fits into one turn, the source
    /// calls its waker itself. After [`Flow::Over`] the stream ends once everything appended is written.
    fn next(&mut self, parts: &mut Vec<Bytes>) -> Flow;

    /// Takes what the client has sent since the request head, in the order of arrival. To reply, the
    /// source calls its waker and replies in [`next`](Self::next). After [`Flow::Over`] the stream ends at
    /// once.
    fn receive(&mut self, bytes: &[u8]) -> Flow;

    /// What is written now and then to show the client and proxies that the stream is alive.
    fn ping(&self) -> Bytes;

    /// What is written last, when the server stops.
    fn last_words(&self) -> Bytes;
}

/// Whether a stream continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    On,
    Over,
}

/// Writes all streams whose sockets were taken over.
pub(crate) struct Writers<S> {
    shards: Vec<Arc<Shard<S>>>,
    next: AtomicUsize,
}

/// A stream's place in one of the shards. When notified as a waker, it makes the shard ask the stream for
/// what is next; when woken by the reactor, it makes the shard check the socket.
pub(crate) struct Slot<S> {
    shard: Arc<Shard<S>>,
    token: usize,
}

impl<S: Source> Writers<S> {
    /// Runs `count` shards until shutdown. Every stream is pinged when `pings` changes. A stream whose
    /// client reads nothing for as long as `stall` is dropped, which `cut` counts.
    pub(crate) fn start(
        count: usize,
        stall: Duration,
        cut: &Counter,
        pings: &watch::Receiver<u64>,
        lifecycle: &Lifecycle,
    ) -> Self {
        let shards = (0..count.max(1)).map(|_| {
            let shard = Arc::<Shard<S>>::default();
            let worker = Worker::new(shard.clone(), cut.clone());
            let work = worker.run(stall, pings.clone(), lifecycle.clone());
            // The task itself limits how much it does in one go.
            lifecycle.spawn("writer", tokio::task::unconstrained(work));
            shard
        });
        Self {
            shards: shards.collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Reserves a place for a stream before its socket is available. Its waker may already be notified.
    pub(crate) fn reserve(&self) -> Arc<Slot<S>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let shard = self.shards[next % self.shards.len()].clone();
        let token = shard.reserve();
        Arc::new(Slot { shard, token })
    }
}

impl<S: Source> Slot<S> {
    /// Makes the shard write what `source` produces to the socket, and drop both when either ends.
    pub(crate) fn adopt(self: Arc<Self>, taken: Taken, source: S) {
        let shard = self.shard.clone();
        shard.adopt(Outlet::new(self, taken, source));
    }
}

impl<S: Source> Waker for Slot<S> {
    fn notify(&self) {
        self.shard.call(self.token, Call::WAKE);
    }
}

impl<S: Source> Wake for Slot<S> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shard.call(self.token, Call::SOCKET);
    }
}

impl<S> Drop for Slot<S> {
    fn drop(&mut self) {
        self.shard.free(self.token);
    }
}
