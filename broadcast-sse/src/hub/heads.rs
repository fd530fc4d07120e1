use std::time::Duration;

use chat_model::{ChannelId, Head, MAX_HEADS};
use service_kit::lifecycle::Lifecycle;
use tokio::sync::{mpsc, oneshot, watch};

use super::history::History;

/// Asks chat-service for heads, many in one request.
///
/// What is asked while a request is under way goes into the next one, so that ten thousand
/// channels that wake up at once cost ten requests.
#[derive(Clone)]
pub(super) struct Heads {
    questions: mpsc::Sender<Question>,
    service: watch::Receiver<Service>,
}

/// What the last answer said of chat-service itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Service {
    /// Whether it answers.
    pub(super) answers: bool,
    /// Whether something has been waiting for the broker for more than a second.
    pub(super) behind: bool,
    /// Heartbeats that the broker has taken of it, lately.
    pub(super) heartbeats: Vec<String>,
}

/// `None` asks only for the state of the service.
type Question = Option<(ChannelId, oneshot::Sender<Head>)>;

impl Heads {
    pub(super) fn start(history: History, lifecycle: &Lifecycle) -> Self {
        let (questions, asked) = mpsc::channel(4 * MAX_HEADS);
        let (tell, service) = watch::channel(Service::default());
        lifecycle.spawn("heads", ask(history, asked, tell, lifecycle.clone()));
        Self { questions, service }
    }

    /// The head of a channel, read after this call; `None` if chat-service does not answer.
    pub(super) async fn head(&self, channel: ChannelId) -> Option<Head> {
        // Nobody takes questions any more when the process ends.
        let (answer, answered) = oneshot::channel();
        self.questions.send(Some((channel, answer))).await.ok()?;
        answered.await.ok()
    }

    /// Has the state of the service looked up. Says nothing if questions are waiting anyway.
    pub(super) fn look(&self) {
        // A full queue will be answered, and tells the same.
        self.questions.try_send(None).ok();
    }

    /// What the last answer said of chat-service itself.
    pub(super) fn service(&self) -> watch::Receiver<Service> {
        self.service.clone()
    }
}

async fn ask(
    history: History,
    mut asked: mpsc::Receiver<Question>,
    tell: watch::Sender<Service>,
    lifecycle: Lifecycle,
) {
    let soft = lifecycle.soft();
    let mut batch = Vec::with_capacity(MAX_HEADS);
    // `None` until the first answer, so that the first trouble is worth a line as well.
    let mut answering = None;
    loop {
        batch.clear();
        let more = tokio::select! {
            count = asked.recv_many(&mut batch, MAX_HEADS) => count > 0,
            () = soft.cancelled() => false,
        };
        if !more {
            return;
        }
        let questions: Vec<_> = batch.drain(..).flatten().collect();
        let channels: Vec<_> = questions.iter().map(|(channel, _)| *channel).collect();
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
                for ((_, question), head) in questions.into_iter().zip(answer.heads) {
                    // Whoever asked may have gone.
                    question.send(head).ok();
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
                // The questions are dropped, and their askers come again after a while.
                drop(questions);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}
