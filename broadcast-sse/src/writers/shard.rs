use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::counter::Counter;
use service_kit::lifecycle::Lifecycle;
use slab::Slab;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::Source;
use super::outlet::{Outlet, Standing};

/// How many streams are served before other tasks have a turn.
const SLICE: usize = 128;

/// What reaches a shard from other tasks.
pub(super) struct Shard<S> {
    mail: Mutex<Mail<S>>,
    /// Notified when there is mail.
    wake: Notify,
}

struct Mail<S> {
    /// One for each stream.
    slots: Slab<Call>,
    /// The streams that were called.
    called: Vec<usize>,
    arrivals: Vec<Outlet<S>>,
    /// The worker has ended.
    closed: bool,
}

/// Why a stream was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    waker: bool,
    socket: bool,
}

/// The task of a shard.
pub(super) struct Worker<S> {
    shard: Arc<Shard<S>>,
    /// By token.
    outlets: Vec<Option<Box<Outlet<S>>>>,
    open: usize,
    /// The streams with an unfinished write.
    blocked: HashSet<usize>,
    /// The streams that were called and have not been served yet.
    called: Vec<(usize, Call)>,
    /// What is under way for all streams, and which stream is next.
    round: Option<(Round, usize)>,
    draining: bool,
    /// Counts streams that ended because their clients did not read.
    cut: Counter,
    /// Scratch space, empty between turns.
    parts: Vec<Bytes>,
}

/// Something that is done for every stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Ping,
    Finish,
}

impl Call {
    pub(super) const WAKE: Self = Self {
        waker: true,
        socket: false,
    };
    pub(super) const SOCKET: Self = Self {
        waker: false,
        socket: true,
    };

    /// Returns whether this is the first call since the last one that was served.
    fn add(&mut self, other: Self) -> bool {
        let first = *self == Self::default();
        self.waker |= other.waker;
        self.socket |= other.socket;
        first
    }
}

impl<S> Default for Shard<S> {
    fn default() -> Self {
        Self {
            mail: Mutex::new(Mail {
                slots: Slab::new(),
                called: Vec::new(),
                arrivals: Vec::new(),
                closed: false,
            }),
            wake: Notify::new(),
        }
    }
}

impl<S> Shard<S> {
    pub(super) fn reserve(&self) -> usize {
        self.lock().slots.insert(Call::default())
    }

    pub(super) fn free(&self, token: usize) {
        self.lock().slots.remove(token);
    }

    pub(super) fn call(&self, token: usize, call: Call) {
        let mut mail = self.lock();
        if mail.slots[token].add(call) {
            mail.called.push(token);
            if mail.called.len() == 1 {
                drop(mail);
                self.wake.notify_one();
            }
        }
    }

    pub(super) fn adopt(&self, outlet: Outlet<S>) {
        let mut mail = self.lock();
        if mail.closed {
            // The outlet is dropped after the lock is released, because it needs the lock to free its slot.
            return drop(mail);
        }
        mail.arrivals.push(outlet);
        drop(mail);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Mail<S>> {
        self.mail.lock()
    }
}

impl<S: Source> Worker<S> {
    pub(super) fn new(shard: Arc<Shard<S>>, cut: Counter) -> Self {
        Self {
            shard,
            outlets: Vec::new(),
            open: 0,
            blocked: HashSet::new(),
            called: Vec::new(),
            round: None,
            draining: false,
            cut,
            parts: Vec::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        stall: Duration,
        mut pings: watch::Receiver<u64>,
        lifecycle: Lifecycle,
    ) {
        let (soft, hard) = (lifecycle.soft(), lifecycle.hard());
        let mut looks = tokio::time::interval((stall / 10).max(Duration::from_millis(10)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.take_mail();
            if self.turn() {
                tokio::task::yield_now().await;
                if hard.is_cancelled() {
                    return;
                }
                continue;
            }
            if self.draining && self.close() {
                return;
            }
            tokio::select! {
                biased;
                () = hard.cancelled() => return,
                () = soft.cancelled(), if !self.draining => {
                    self.draining = true;
                    self.round = Some((Round::Finish, 0));
                }
                () = self.shard.wake.notified() => {}
                Ok(()) = pings.changed(), if !self.draining => self.round = Some((Round::Ping, 0)),
                _ = looks.tick(), if !self.blocked.is_empty() => self.drop_stalled(stall),
            }
        }
    }

    fn take_mail(&mut self) {
        let mut mail = self.shard.lock();
        let Mail {
            slots,
            called,
            arrivals,
            ..
        } = &mut *mail;
        if self.called.is_empty() {
            // Not earlier, or a stream that is called again and again would be served before all others. A
            // slot that is already free has no call, or the call of its next stream.
            let call = |token| Some((token, std::mem::take(slots.get_mut(token)?)));
            self.called.extend(called.drain(..).filter_map(call));
        }
        let arrivals = std::mem::take(arrivals);
        drop(mail);
        for outlet in arrivals {
            self.reader(outlet);
        }
    }

    /// If no streams are left, accepts no more of them.
    fn close(&self) -> bool {
        let mut mail = self.shard.lock();
        mail.closed = self.open == 0 && mail.arrivals.is_empty();
        mail.closed
    }

    fn reader(&mut self, outlet: Outlet<S>) {
        let token = outlet.token();
        if self.outlets.len() <= token {
            self.outlets.resize_with(token + 1, || None);
        }
        self.outlets[token] = Some(Box::new(outlet));
        self.open += 1;
        // This registers with the reactor; the waker may have been notified earlier.
        self.serve(token, Outlet::look);
        if self.draining {
            self.serve(token, Outlet::finish);
        }
    }

    /// Serves a slice of streams. Returns whether there is more to do.
    fn turn(&mut self) -> bool {
        for _ in 0..SLICE {
            let Some((token, call)) = self.called.pop() else {
                break;
            };
            if call.socket {
                self.serve(token, Outlet::look);
            } else {
                self.serve(token, Outlet::notified);
            }
        }
        if let Some((round, next)) = self.round {
            let end = (next + SLICE).min(self.outlets.len());
            for token in next..end {
                self.serve(token, |outlet, parts| match round {
                    Round::Ping => outlet.ping(parts),
                    Round::Finish => outlet.finish(parts),
                });
            }
            self.round = (end < self.outlets.len()).then_some((round, end));
        }
        !self.called.is_empty() || self.round.is_some()
    }

    fn drop_stalled(&mut self, stall: Duration) {
        let stalled = |&token: &usize| {
            let outlet = self.outlets[token].as_ref();
            let since = outlet.and_then(|outlet| outlet.blocked_since());
            since.is_some_and(|since| since.elapsed() > stall)
        };
        let tokens: Vec<usize> = self.blocked.iter().copied().filter(stalled).collect();
        for token in tokens {
            tracing::debug!("a stream ends: its client does not read what is sent to it");
            self.cut.inc();
            self.remove(token);
        }
    }

    fn serve(
        &mut self,
        token: usize,
        turn: impl FnOnce(&mut Outlet<S>, &mut Vec<Bytes>) -> Standing,
    ) {
        let Some(outlet) = self.outlets.get_mut(token).and_then(Option::as_mut) else {
            return;
        };
        match turn(outlet, &mut self.parts) {
            Standing::Idle if self.blocked.is_empty() => {}
            Standing::Idle => {
                self.blocked.remove(&token);
            }
            Standing::Blocked => {
                self.blocked.insert(token);
            }
            Standing::Gone => self.remove(token),
        }
    }

    fn remove(&mut self, token: usize) {
        self.blocked.remove(&token);
        if self.outlets[token].take().is_some() {
            self.open -= 1;
        }
    }
}
