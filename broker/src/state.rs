use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::watch;

use crate::BrokerConfig;
use crate::clients::Clients;
use crate::router::RouterLife;
use crate::session::Shared;

/// What the parts of the broker share.
pub(crate) struct State {
    pub(crate) config: BrokerConfig,
    pub(crate) clients: Arc<Clients>,
    pub(crate) shared: Arc<Shared>,
    /// The router of now.
    pub(crate) router: watch::Sender<Arc<RouterLife>>,
    /// Whether the last probe was answered.
    pub(crate) answers: AtomicBool,
    /// How often the router was started again.
    pub(crate) restarts: AtomicU64,
}
