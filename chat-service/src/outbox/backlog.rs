//! Asks the log what is stored but not yet published. This is correct at every moment, even while the
//! outbox waits for the broker.

use std::time::Duration;

use chat_mqtt::BrokerState;
use chat_store::{Outbox, PageLimit, StoreError};
use tokio::sync::watch;
use tokio::time::sleep;

/// Once an event has been unpublished for this long, listeners must read the log (`POST /heads`).
const BEHIND: Duration = Duration::from_secs(1);
const ONE: PageLimit = PageLimit {
    events: 1,
    bytes: 0,
};

/// Whether a committed event has waited more than a second for the broker's acknowledgement.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn is_behind(store: &dyn Outbox) -> Result<bool, StoreError> {
    let oldest = store.oldest_unpublished().await?;
    Ok(oldest.is_some_and(|age| age > BEHIND))
}

/// Waits until everything is published, as long as the broker can be reached.
pub(crate) async fn drained(store: &dyn Outbox, mut broker: watch::Receiver<BrokerState>) {
    /// The pause between two checks of the log.
    const PAUSE: Duration = Duration::from_millis(10);
    let empty = async {
        loop {
            // Without the store there is nothing to wait for.
            let Ok(confirmed) = store.published_to().await else {
                return;
            };
            match store.unpublished(confirmed, ONE).await {
                Ok(waiting) if !waiting.is_empty() => sleep(PAUSE).await,
                // As above. What is left is published after the next start.
                Ok(_) | Err(_) => return,
            }
        }
    };
    tokio::select! {
        () = empty => {}
        // An error means that the publisher is gone.
        _ = broker.wait_for(|state| !state.is_up()) => {}
    }
}
