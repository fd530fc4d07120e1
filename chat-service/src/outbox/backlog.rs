//! What is stored and not yet published, asked of the log itself: right at every moment, also while
//! the outbox waits for the broker.

use std::time::Duration;

use chat_mqtt::BrokerState;
use chat_store::{Outbox, PageLimit, StoreError};
use tokio::sync::watch;
use tokio::time::sleep;

/// How old an unpublished event is when listeners must look at the log themselves (`POST /heads`).
const BEHIND: Duration = Duration::from_secs(1);
const ONE: PageLimit = PageLimit {
    events: 1,
    bytes: 0,
};

/// Whether something committed has been without the broker's acknowledgement for over a second.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn is_behind(store: &dyn Outbox) -> Result<bool, StoreError> {
    let oldest = store.oldest_unpublished().await?;
    Ok(oldest.is_some_and(|age| age > BEHIND))
}

/// Waits until everything is published, as long as the broker is there.
pub(crate) async fn drained(store: &dyn Outbox, mut broker: watch::Receiver<BrokerState>) {
    /// Between two looks at the log.
    const PAUSE: Duration = Duration::from_millis(10);
    let empty = async {
        loop {
            // Without the store there is nothing to wait for.
            let Ok(confirmed) = store.published_to().await else {
                return;
            };
            match store.unpublished(confirmed, ONE).await {
                Ok(waiting) if !waiting.is_empty() => sleep(PAUSE).await,
                // As above. What is left in it is published after the next start.
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
