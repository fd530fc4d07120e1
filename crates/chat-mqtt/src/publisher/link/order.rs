//! Messages to be published, and those that wait for their PUBACK.

use bytes::Bytes;
use chat_model::ChannelId;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::debug;

use crate::publisher::{NotConfirmed, Token};

/// One message to be published, and its confirmation.
pub(in crate::publisher) struct Order {
    pub(in crate::publisher) token: Token,
    pub(in crate::publisher) channel: ChannelId,
    pub(in crate::publisher) payload: Bytes,
    pub(in crate::publisher) reply: oneshot::Sender<Result<(), NotConfirmed>>,
}

impl Order {
    pub(super) fn answer(self, answer: Result<(), NotConfirmed>) {
        if self.reply.send(answer).is_err() {
            debug!(token = self.token.0, "nobody waits for this confirmation");
        }
    }
}

/// Something that waits for its PUBACK. The connection has the payload.
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) what: What,
}

pub(super) enum What {
    Event {
        token: Token,
        channel: ChannelId,
        reply: oneshot::Sender<Result<(), NotConfirmed>>,
    },
    Heartbeat,
}

impl Sent {
    pub(super) fn token(&self) -> Option<Token> {
        match self.what {
            What::Event { token, .. } => Some(token),
            What::Heartbeat => None,
        }
    }
}
