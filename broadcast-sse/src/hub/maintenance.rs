use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use chat_model::{ChannelId, MAX_PAGE_EVENTS, Seq};
use chat_mqtt::Changed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Hub;
use super::channel::{Claim, Task};
use super::tail::Ask;

/// How many channels are checked before other tasks get the processor.
const AT_A_TIME: usize = 256;

/// A hole in a channel's tail that must be filled from history.
struct Hole {
    claim: Claim,
    ask: Ask,
    after: Seq,
}

/// Looks after all channels: follows their subscriptions, requests their heads from the store, fills holes
/// from history, and forgets channels that have had no listener for long.
///
/// The task sleeps until a channel has something to do. What a channel waits for is in its own state, so
/// an idle channel costs nothing here.
pub(super) async fn maintain(hub: Arc<Hub>, reads: usize) {
    let soft = hub.lifecycle.soft();
    let reads = Arc::new(Semaphore::new(reads));
    // At most one for each channel.
    let mut holes = VecDeque::new();
    loop {
        let now = Instant::now();
        hub.end_lingering(now);
        for id in hub.shared.tasks.take(AT_A_TIME, now) {
            look_after(&hub, id, now, &mut holes);
        }
        let next = hub.next_task();
        tokio::select! {
            () = soft.cancelled() => return,
            changed = hub.subscriber.changed() => follow(&hub, changed),
            () = hub.shared.tasks.added() => {}
            Ok(permit) = reads.clone().acquire_owned(), if !holes.is_empty() => {
                if let Some(hole) = holes.pop_front() {
                    hub.lifecycle.spawn_transient(fill(hub.clone(), hole, permit));
                }
            }
            () = sleep_until(next) => {}
        }
    }
}

fn look_after(hub: &Hub, id: ChannelId, now: Instant, holes: &mut VecDeque<Hole>) {
    // A channel that was forgotten in the meantime needs nothing.
    let Some(channel) = hub.channel(id) else {
        return;
    };
    match channel.task(hub.patience, now) {
        Task::Head(claim) => hub.heads.ask(claim),
        Task::Page(claim, ask, after) => holes.push_back(Hole { claim, ask, after }),
        Task::Nothing => {}
    }
}

/// Tells channels the state of their subscriptions.
fn follow(hub: &Hub, changed: Changed) {
    let now = Instant::now();
    match changed {
        Changed::All => {
            for channel in hub.all_channels() {
                channel.follow_subscription(now);
            }
        }
        Changed::Some(channels) => {
            for id in channels {
                if let Some(channel) = hub.channel(id) {
                    channel.follow_subscription(now);
                }
            }
        }
    }
}

async fn fill(hub: Arc<Hub>, hole: Hole, _permit: OwnedSemaphorePermit) {
    let Hole { claim, ask, after } = hole;
    if claim.channel().is_gone() {
        return claim.give_up();
    }
    let soft = hub.lifecycle.soft();
    let id = claim.channel().id();
    // This must not queue behind the pages that listeners ask for: there may be many.
    let read = hub.pages.read_now(id, after, MAX_PAGE_EVENTS);
    // Without a page, the drop of the claim makes the channel ask again.
    if let Some(Some(page)) = soft.run_until_cancelled(read).await {
        let healed = claim.page(ask, &page, Instant::now());
        hub.metrics.healed.inc_by(healed);
        hub.keep_within_memory();
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
