use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chat_model::{MAX_PAGE_EVENTS, Seq};
use chat_mqtt::{Standing, Subscription};

use super::{
    Hub,
    channel::{Channel, Errand, Hearing},
    tail::Ask,
};

/// Looks after one channel as long as somebody listens, and a while longer: keeps its subscription,
/// asks the store where the log stands, and fills holes from history.
pub(super) async fn attend(hub: Arc<Hub>, channel: Arc<Channel>, subscription: Subscription) {
    let soft = hub.lifecycle.soft();
    let mut standing = subscription.state();
    // So that the first standing counts as news.
    standing.mark_changed();
    loop {
        // An error is found below, where the change is waited for.
        if standing.has_changed().unwrap_or(false) {
            channel.hearing(hearing(*standing.borrow_and_update()));
        }
        let until = match channel.errand(hub.patience, Instant::now()) {
            Errand::Leave if hub.forget(&channel) => return,
            Errand::Leave => continue,
            Errand::Nothing(until) => until,
            // Boxed: errands are rare, and every channel's task would keep room for them.
            Errand::Head(ask) => {
                let ask = Box::pin(ask_head(&hub, &channel, ask));
                match soft.run_until_cancelled(ask).await {
                    Some(()) => continue,
                    None => return,
                }
            }
            Errand::Page(ask, after) => {
                let fill = Box::pin(fill_hole(&hub, &channel, ask, after));
                match soft.run_until_cancelled(fill).await {
                    Some(()) => continue,
                    None => return,
                }
            }
        };
        tokio::select! {
            () = soft.cancelled() => return,
            // An error means that the subscriber is gone: so is the process, soon.
            changed = standing.changed() => match changed {
                Ok(()) => standing.mark_changed(),
                Err(_) => return,
            },
            () = channel.errand_changed() => {}
            () = sleep_until(until) => {}
        }
    }
}

async fn ask_head(hub: &Hub, channel: &Channel, ask: Ask) {
    match hub.heads.head(channel.id()).await {
        Some(head) => channel.answered(ask, &head, Instant::now()),
        None => {
            pause().await;
            // Somebody may wait for just this answer.
            channel.want_head();
        }
    }
}

async fn fill_hole(hub: &Hub, channel: &Channel, ask: Ask, after: Seq) {
    match hub
        .pages
        .read_now(channel.id(), after, MAX_PAGE_EVENTS)
        .await
    {
        Some(page) => {
            let brought = channel.fill(ask, &page, Instant::now());
            hub.metrics.healed.inc_by(brought);
            hub.keep_within_memory();
        }
        None => pause().await,
    }
}

fn hearing(standing: Standing) -> Hearing {
    match standing {
        Standing::Pending => Hearing::NotYet {
            since: Instant::now(),
        },
        Standing::Live { .. } => Hearing::Live,
        Standing::BrokerAway { .. } => Hearing::Polling,
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Before a question that had no answer is asked again; spread, for there may be many channels.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(200..800))).await;
}
