use std::sync::Arc;

use chat_model::Head;
use tokio::sync::Notify;
use uuid::Uuid;

use super::*;
use crate::hub::channel::Shared;
use crate::hub::example_log::{entry_of, head};
use crate::hub::tail::{Tail, TailLimits};

const LINGER: Duration = Duration::from_secs(30);

type Readers = Vec<(Arc<Channel>, usize, Reader)>;

/// Channels, of which those from 1 to 9 have a log.
struct Example {
    channels: Channels,
    shared: Arc<Shared>,
    now: Instant,
}

fn id(n: u128) -> ChannelId {
    Uuid::from_u128(n).into()
}

impl Example {
    fn new(max: usize) -> Self {
        Self {
            channels: Channels::new(max, LINGER),
            shared: Arc::default(),
            now: Instant::now(),
        }
    }

    fn join(&mut self, ids: &[u128]) -> Result<Readers, TooManyChannels> {
        self.join_as(None, ids)
    }

    fn join_as(&mut self, client: Client, ids: &[u128]) -> Result<Readers, TooManyChannels> {
        let (shared, now) = (self.shared.clone(), self.now);
        let limits = TailLimits {
            ring_events: 10,
            ring_bytes: 1 << 20,
        };
        let starts: Vec<_> = ids.iter().map(|n| (id(*n), Start::Live)).collect();
        let waker: Arc<dyn Waker> = Arc::new(Notify::new());
        let made = |id| Channel::new(id, Tail::new(limits, 0), shared.clone(), None, now);
        let readers = self
            .channels
            .join(client, &starts, &waker, |id| Arc::new(made(id)))?;
        for (channel, _, _) in &readers {
            let has_log = (1..10).any(|n| id(n) == channel.id());
            let head = Head {
                channel: channel.id(),
                ..head(u64::from(has_log))
            };
            channel.answered(channel.ask(), &head, now);
        }
        Ok(readers)
    }

    fn leave(&mut self, readers: &[(Arc<Channel>, usize, Reader)]) {
        self.now += Duration::from_secs(1);
        for (channel, waker, _) in readers {
            if channel.leave(*waker) {
                self.channels.left(channel, self.now);
            }
        }
    }

    fn known(&self) -> Vec<u128> {
        let known = |n: &u128| self.channels.get(id(*n)).is_some();
        (1..20).filter(known).collect()
    }
}

#[test]
fn a_channel_lingers_if_it_has_a_log() {
    let mut all = Example::new(10);
    let readers = all.join(&[1, 2, 11, 12]).unwrap();
    let second = all.join(&[2, 12]).unwrap();
    all.leave(&readers);
    assert_eq!(all.known(), [1, 2, 12], "11 has no log");
    all.leave(&second);
    assert_eq!(all.known(), [1, 2]);
    let gone: Vec<_> = readers
        .iter()
        .map(|(channel, ..)| channel.is_gone())
        .collect();
    assert_eq!(gone, [false, false, true, true]);
    let first = all.channels.next_end().unwrap();
    all.channels.end_lingering(first);
    assert_eq!(all.known(), [2]);
    let back = all.join(&[2]).unwrap();
    assert_eq!(all.channels.next_end(), None, "it is listened to again");
    all.leave(&back);
    assert_eq!(all.channels.next_end(), Some(all.now + LINGER));
}

#[test]
fn a_channel_whose_head_nobody_knows_yet_keeps_nothing() {
    let mut all = Example::new(10);
    let waker: Arc<dyn Waker> = Arc::new(Notify::new());
    let (shared, now) = (all.shared.clone(), all.now);
    let limits = TailLimits {
        ring_events: 10,
        ring_bytes: 1 << 20,
    };
    let made = |id| {
        Arc::new(Channel::new(
            id,
            Tail::new(limits, 0),
            shared.clone(),
            None,
            now,
        ))
    };
    let starts = [1, 2].map(|n| (id(n), Start::Live));
    let readers = all.channels.join(None, &starts, &waker, made).unwrap();
    // It waits for the store's answer.
    let heard = entry_of(id(2), 1);
    readers[1].0.hear(std::iter::once(heard), |_| ());
    all.leave(&readers);
    assert_eq!(all.known(), [2], "2 has an event");
}

#[test]
fn beyond_the_bound_the_oldest_go_first_and_then_nobody_may_come() {
    let mut all = Example::new(4);
    let held = all.join(&[1]).unwrap();
    for n in [2, 3, 4] {
        let readers = all.join(&[n]).unwrap();
        all.leave(&readers);
    }
    let more = all.join(&[2, 5]).unwrap();
    assert_eq!(
        all.known(),
        [1, 2, 4, 5],
        "3 was the oldest but 2 is wanted"
    );
    assert_eq!(all.join(&[6, 7]).err(), Some(TooManyChannels::Node));
    assert_eq!(all.known(), [1, 2, 4, 5], "nobody goes for nothing");
    all.join(&[1, 2, 5]).unwrap();
    let last = all.join(&[6]).unwrap();
    assert_eq!(all.known(), [1, 2, 5, 6]);
    assert_eq!(all.join(&[7]).err(), Some(TooManyChannels::Node));
    for readers in [held, more, last] {
        all.leave(&readers);
    }
    assert_eq!(all.known(), [1, 2, 5, 6]);
}

#[test]
fn a_client_holds_no_more_than_are_free() {
    let mut all = Example::new(16);
    let (greedy, other) = (Some(1), Some(2));
    let refused = Some(TooManyChannels::Share);
    let mut held = vec![all.join_as(greedy, &[1, 2, 3, 4]).unwrap()];
    assert_eq!(all.join_as(greedy, &[5, 6, 7, 8, 9]).err(), refused);
    held.push(all.join_as(greedy, &[5, 6, 7, 8]).unwrap());
    assert_eq!(all.join_as(greedy, &[9]).err(), refused, "half of all");
    // Channels that somebody already listens to cost nothing.
    held.push(all.join_as(greedy, &[1, 8]).unwrap());
    let others = all.join_as(other, &[8, 11, 12, 13, 14]).unwrap();
    assert_eq!(all.join_as(other, &[15]).err(), refused);
    for readers in held {
        all.leave(&readers);
    }
    // All but 8 linger, and are dropped. The holder of 8 has left, and nobody has taken its place.
    all.join_as(other, &[15, 16]).unwrap();
    assert_eq!(all.join_as(greedy, &[17, 18, 19, 1]).err(), None);
    drop(others);
}
