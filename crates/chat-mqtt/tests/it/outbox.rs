use bytes::Bytes;
use chat_model::ChannelId;
use chat_mqtt::{NotConfirmed, Publisher, Token};
use tokio::time::timeout;

use crate::SOON;

/// Publishes all payloads in order as an outbox does, starting again at the first that was not confirmed.
/// Returns the positions of those that were set aside.
pub(crate) async fn publish_all(
    publisher: &Publisher,
    channel: ChannelId,
    payloads: &[Bytes],
) -> Vec<usize> {
    let mut aside = Vec::new();
    let mut done = 0;
    let mut state = publisher.state();
    while done < payloads.len() {
        timeout(SOON, state.wait_for(|state| state.is_up()))
            .await
            .expect("in time")
            .unwrap();
        let mut confirmations = Vec::new();
        for (position, payload) in payloads.iter().enumerate().skip(done) {
            let token = Token(position as u64);
            confirmations.push(publisher.publish(token, channel, payload.clone()).await);
        }
        for confirmation in confirmations {
            match timeout(SOON, confirmation)
                .await
                .expect("every confirmation resolves")
            {
                Ok(()) => {}
                Err(NotConfirmed::SetAside) => aside.push(done),
                Err(NotConfirmed::ConnectionLost) => break,
            }
            done += 1;
        }
    }
    aside
}
