//! Writes streams straight to their sockets, which have left the HTTP server after the head.
//!
//! A few shards, one for each processor, share all streams. A shard is one task with a queue of the
//! streams that were called. A stream that waits costs its socket, its [`Source`] and some hundred
//! bytes; it has no task, no timer and no buffer.
//!
//! - When it is woken, a stream is asked once for what is next, and all of that is written at
//!   once. It is never asked while it has an *unfinished write*, the rest of what the kernel would
//!   not take, of which it has at most one.
//! - The reactor calls the shard when a client sends or closes, and when a socket that would have
//!   blocked has room.
//! - A client that takes nothing for the time allowed is dropped; one that closes its side as well,
//!   for a closed tab looks the same. What a client sends is the source's, which may end the stream
//!   for it, and after any turn.
//! - At shutdown each stream is asked for its last words; with them, or with the hard end, it goes.
//! - A slice of streams is served at a time, then others have a turn: no crowd of listeners holds
//!   up the rest of the process.

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

/// What is written to one socket.
pub(crate) trait Source: Send + 'static {
    /// Appends what is next, if there is anything. If there is more than fits a turn, calls its
    /// waker itself. After [`Flow::Over`] the stream ends as soon as what was appended is written.
    fn next(&mut self, parts: &mut Vec<Bytes>) -> Flow;

    /// Takes what the client has sent since the request head, in the order in which it came. What
    /// there is to say to it is said by [`next`](Self::next), for which the source calls its waker.
    /// After [`Flow::Over`] the stream ends at once.
    fn receive(&mut self, bytes: &[u8]) -> Flow;

    /// What is written now and then so that the client and proxies know that the stream lives.
    fn ping(&self) -> Bytes;

    /// What is written last, when the server stops.
    fn last_words(&self) -> Bytes;
}

/// Whether a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    On,
    Over,
}

/// All sockets that streams are written to.
pub(crate) struct Writers<S> {
    shards: Vec<Arc<Shard<S>>>,
    next: AtomicUsize,
}

/// A stream's number in one of the shards. Called as a waker, it has the stream asked for what is
/// next; woken by the reactor, it has the socket looked at.
pub(crate) struct Slot<S> {
    shard: Arc<Shard<S>>,
    token: usize,
}

impl<S: Source> Writers<S> {
    /// Runs `count` shards until shutdown. Every stream is pinged when `pings` changes, and dropped
    /// when its client takes nothing for as long as `stall`, which `cut` counts.
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
            // It counts by itself how much it does in one go.
            lifecycle.spawn("writer", tokio::task::unconstrained(work));
            shard
        });
        Self {
            shards: shards.collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// A place for a stream whose socket is still to come. Its waker may be woken already.
    pub(crate) fn reserve(&self) -> Arc<Slot<S>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let shard = self.shards[next % self.shards.len()].clone();
        let token = shard.reserve();
        Arc::new(Slot { shard, token })
    }
}

impl<S: Source> Slot<S> {
    /// Has the shard write what `source` says to the socket, and drop both when either ends.
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
