use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::connection::{Connection, ConnectionError};
use crate::{Backoff, MqttConfig};

/// A connection that stood for this long was a good one: the next back-off begins anew.
pub(crate) const LASTING: Duration = Duration::from_secs(10);

/// One connection's way through its attempts: client ids, back-off, and what the log says.
pub(crate) struct Session {
    config: MqttConfig,
    /// `publisher 0`, for the log.
    name: String,
    client_id_stem: String,
    attempts: u64,
    backoff: Backoff,
    /// Whether the log has said that the broker is away.
    away_logged: bool,
    up_since: Option<Instant>,
}

impl Session {
    /// `role` is one letter for the client id; `process` tells processes apart.
    pub(crate) fn new(config: &MqttConfig, role: &str, process: u32, number: usize) -> Self {
        let letter = &role[..1];
        Self {
            config: config.clone(),
            name: format!("{role} {number}"),
            client_id_stem: format!("{}-{process:08x}-{letter}{number}", config.client_id_prefix),
            attempts: 0,
            backoff: Backoff::CONNECTION,
            away_logged: false,
            up_since: None,
        }
    }

    /// One attempt. Each has a client id of its own: an earlier connection, which the broker may
    /// still believe in, is none of this one's business, as every session is a clean one.
    pub(crate) async fn connect(&mut self) -> Result<Connection, ConnectionError> {
        self.attempts += 1;
        let client_id = format!("{}-{}", self.client_id_stem, self.attempts);
        let connection = Connection::open(&self.config, client_id).await?;
        self.up_since = Some(Instant::now());
        info!(connection = self.name, broker = %self.config.url, "connected to the broker");
        self.away_logged = false;
        Ok(connection)
    }

    /// Notes that an attempt failed or a connection ended; gives the pause before the next.
    pub(crate) fn lost(&mut self, error: &ConnectionError) -> Duration {
        if self.lasted() {
            self.backoff.reset();
        }
        self.up_since = None;
        let pause = self.backoff.next_pause();
        if self.away_logged {
            debug!(connection = self.name, broker = %self.config.url, %error, ?pause, "broker is still away");
        } else {
            warn!(connection = self.name, broker = %self.config.url, %error, "broker is away; trying again until it is back");
            self.away_logged = true;
        }
        pause
    }

    /// Whether the present connection has stood for long.
    pub(crate) fn lasted(&self) -> bool {
        self.up_since
            .is_some_and(|since| since.elapsed() >= LASTING)
    }
}

/// Tells this process, and each start in it, apart from all others that use the same broker.
pub(crate) fn process_mark() -> u32 {
    rand::random()
}
