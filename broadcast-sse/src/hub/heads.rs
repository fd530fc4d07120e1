use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_model::MAX_HEADS;
use service_kit::lifecycle::Lifecycle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};

use super::channel::Claim;
use super::history::History;

/// The most requests that wait at a time. Channels that are gone stay in memory until their request is
/// discarded. Without a limit, streams that come and go could fill memory while chat-service is away.
const MOST_QUESTIONS: usize = 64 * MAX_HEADS;

/// Asks chat-service for heads, many in one HTTP request.
///
/// What is asked while a request is under way goes into the next one, so ten thousand channels that wake
/// up at once cost ten requests.
#[derive(Clone)]
pub(super) struct Heads {
    questions: mpsc::Sender<Claim>,
    /// Notified when the state of the service itself must be looked up.
    look: Arc<Notify>,
    service: watch::Receiver<Service>,
}

/// What the last answer said about chat-service itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Service {
    /// Whether it answers.
    pub(super) answers: bool,
    /// Whether an event has waited for the broker for more than a second.
    pub(super) behind: bool,
    /// Its heartbeats that the broker has recently accepted.
    pub(super) heartbeats: Vec<String>,
}

impl Heads {
    pub(super) fn start(history: History, lifecycle: &Lifecycle) -> Self {
        let (questions, asked) = mpsc::channel(MOST_QUESTIONS);
        let (tell, service) = watch::channel(Service::default());
        let look = Arc::new(Notify::new());
        let task = ask(history, asked, look.clone(), tell, lifecycle.clone());
        lifecycle.spawn("heads", task);
        Self {
            questions,
            look,
            service,
        }
    }

    /// Requests the head of a channel. The channel receives the answer.
    pub(super) fn ask(&self, claim: Claim) {
        // If the process ends, nobody asks again.
        if let Err(TrySendError::Full(claim)) = self.questions.try_send(claim) {
            claim.put_off();
        }
    }

    /// Requests the state of the service.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// What the last answer said about chat-service itself.
    pub(super) fn service(&self) -> watch::Receiver<Service> {
        self.service.clone()
    }
}

async fn ask(
    history: History,
    mut asked: mpsc::Receiver<Claim>,
    look: Arc<Notify>,
    tell: watch::Sender<Service>,
    lifecycle: Lifecycle,
) {
    let soft = lifecycle.soft();
    let mut batch = Vec::with_capacity(MAX_HEADS);
    // `None` until the first answer, so that trouble at the start is logged too.
    let mut answering = None;
    loop {
        let more = tokio::select! {
            biased;
            () = soft.cancelled() => false,
            count = asked.recv_many(&mut batch, MAX_HEADS) => count > 0,
            () = look.notified() => true,
        };
        if !more {
            return;
        }
        // Channels whose listeners have left in the meantime need no answer.
        let (gone, duties): (Vec<_>, Vec<_>) =
            batch.drain(..).partition(|claim| claim.channel().is_gone());
        let nobody_asks = !gone.is_empty() && duties.is_empty();
        gone.into_iter().for_each(Claim::give_up);
        if nobody_asks {
            continue;
        }
        let questions: Vec<_> = duties
            .into_iter()
            .map(|claim| (claim.channel().ask(), claim))
            .collect();
        let channels: Vec<_> = questions
            .iter()
            .map(|(_, claim)| claim.channel().id())
            .collect();
        let result = tokio::select! {
            result = history.heads(&channels) => result,
            () = soft.cancelled() => return,
        };
        let was = answering.replace(result.is_ok());
        match result {
            Ok(answer) => {
                if was == Some(false) {
                    tracing::info!("chat-service answers again");
                }
                tell.send_replace(Service {
                    answers: true,
                    behind: answer.behind,
                    heartbeats: answer.heartbeats,
                });
                let now = Instant::now();
                let mut heads = answer.heads.into_iter().peekable();
                for (ask, claim) in questions {
                    let channel = claim.channel().id();
                    match heads.next_if(|head| head.channel == channel) {
                        Some(head) => claim.head(ask, &head, now),
                        // The channel asks again after a while.
                        None => {
                            tracing::debug!(%channel, "its entry in the store is damaged");
                            claim.damaged();
                        }
                    }
                }
            }
            Err(error) => {
                if was != Some(false) {
                    tracing::warn!(%error, "history is away; live streams go on");
                }
                tell.send_modify(|service| {
                    service.answers = false;
                    service.heartbeats.clear();
                });
                // The channels ask again after a while.
                drop(questions);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chat_model::ChannelId;

    use super::super::channel::{Channel, Patience, Task};
    use super::super::tail::{Tail, TailLimits};
    use super::*;

    const NO_PATIENCE: Patience = Patience {
        hole: Duration::ZERO,
        subscription: Duration::ZERO,
    };

    #[test]
    fn channel_whose_question_finds_no_room_is_put_off_for_seconds() {
        let (questions, _asked) = mpsc::channel(1);
        let heads = Heads {
            questions,
            look: Arc::default(),
            service: watch::channel(Service::default()).1,
        };
        let start = Instant::now();
        let limits = TailLimits {
            ring_events: 1,
            ring_bytes: 1,
        };
        let channels = [1, 2].map(|n| {
            let id = ChannelId::from(uuid::Uuid::from_u128(n));
            let tail = Tail::new(limits, 0);
            Arc::new(Channel::new(id, tail, Arc::default(), None, start))
        });
        let ask = |channel: &Arc<Channel>, now| match channel.task(NO_PATIENCE, now) {
            Task::Head(claim) => {
                heads.ask(claim);
                true
            }
            _ => false,
        };
        assert!(channels.iter().all(|channel| ask(channel, start)));
        let [_, refused] = &channels;
        assert!(!ask(refused, start + Duration::from_secs(4)));
        let later = Instant::now() + Duration::from_secs(15);
        assert!(ask(refused, later), "but not for ever");
    }
}
