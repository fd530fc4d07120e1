use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chat_model::MAX_PAGE_EVENTS;
use chat_mqtt::{Standing, Subscription};

use super::{
    Hub,
    channel::{Channel, Errand, Hearing},
};

/// Looks after one channel as long as somebody listens, and a while longer: keeps its subscription,
/// asks the store where the log stands, and fills holes from history.
pub(super) async fn attend(hub: Arc<Hub>, channel: Arc<Channel>, subscription: Subscription) {
    let soft = hub.lifecycle.soft();
    let mut standing = subscription.state();
    loop {
        if let Some(hearing) = hearing(&standing.borrow_and_update()) {
            channel.hearing(hearing);
        }
        loop {
            let errand = channel.errand(hub.patience, Instant::now());
            let until = match errand {
                Errand::Head(ask) => {
                    match hub.heads.head(channel.id()).await {
                        Some(head) => channel.answered(ask, &head, Instant::now()),
                        None => {
                            pause().await;
                            // Somebody may wait for just this answer.
                            channel.want_head();
                        }
                    }
                    None
                }
                Errand::Page(ask, after) => {
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
                    None
                }
                Errand::Leave if hub.forget(&channel) => return,
                Errand::Leave => None,
                Errand::Nothing(until) => Some(until),
            };
            let Some(until) = until else {
                if soft.is_cancelled() {
                    return;
                }
                if standing.has_changed().unwrap_or(false) {
                    break;
                }
                continue;
            };
            tokio::select! {
                () = soft.cancelled() => return,
                changed = standing.changed() => match changed {
                    Ok(()) => break,
                    // The subscriber is gone: so is the process, soon.
                    Err(_) => return,
                },
                () = channel.errand_changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }
}

fn hearing(standing: &Standing) -> Option<Hearing> {
    match standing {
        Standing::Pending => Some(Hearing::NotYet {
            since: Instant::now(),
        }),
        Standing::Live { .. } => Some(Hearing::Live),
        Standing::BrokerAway { .. } => Some(Hearing::Polling),
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
