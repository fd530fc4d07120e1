use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rustls::ClientConfig;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::absence::Absence;
use crate::broker_state::StateBoard;
use crate::complaints::Fault;
use crate::connection::{Connection, ConnectionError};
use crate::{Backoff, BrokerUrl, MqttConfig};

/// A connection that lasted this long was a good one: the next back-off starts over.
pub(crate) const LASTING: Duration = Duration::from_secs(10);

/// The longest pause before another address of the list is tried.
const BEFORE_ANOTHER_ADDRESS: Duration = Duration::from_millis(100);

/// The attempts of one connection: addresses, client ids, back-off, and what is logged.
pub(crate) struct Session {
    config: MqttConfig,
    number: usize,
    /// `publisher 0`, for the log.
    name: String,
    client_id_stem: String,
    board: Arc<StateBoard>,
    tls: Option<Arc<ClientConfig>>,
    /// The index of the address that is in use or tried next.
    address: usize,
    attempts: u64,
    /// Failures since the last connection that lasted.
    failures: usize,
    backoff: Backoff,
    up_since: Option<Instant>,
    absence: Absence,
}

impl Session {
    /// `role` is one letter in the client id; `process` tells processes apart.
    pub(crate) fn new(
        config: &MqttConfig,
        role: &str,
        process: u32,
        number: usize,
        board: Arc<StateBoard>,
    ) -> Self {
        let letter = &role[..1];
        Self {
            config: config.clone(),
            number,
            name: format!("{role} {number}"),
            client_id_stem: format!("{}-{process:08x}-{letter}{number}", config.client_id_prefix),
            board,
            tls: None,
            // Random, so that the connections of many processes spread over the nodes.
            address: rand::rng().random_range(0..config.url.all().len()),
            attempts: 0,
            failures: 0,
            backoff: Backoff::CONNECTION,
            up_since: None,
            absence: Absence::default(),
        }
    }

    /// The part of the client id that tells this connection, in all its attempts, from all others at the
    /// broker.
    pub(crate) fn stem(&self) -> &str {
        &self.client_id_stem
    }

    /// The address that is in use or tried next.
    pub(crate) fn url(&self) -> &BrokerUrl {
        &self.config.url.all()[self.address]
    }

    /// `publisher 0`, for the log.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes one attempt. Each has its own client id: the broker may still hold an earlier connection, but
    /// that does not matter, because every session is clean.
    pub(crate) async fn connect(&mut self) -> Result<Connection, ConnectionError> {
        self.attempts += 1;
        let client_id = format!("{}-{}", self.client_id_stem, self.attempts);
        if self.tls.is_none() {
            self.tls = self.config.trust()?;
        }
        let connection =
            Connection::open(&self.config, self.url(), self.tls.clone(), client_id).await?;
        self.up_since = Some(Instant::now());
        self.absence.connected();
        info!(connection = self.name, broker = %self.url(), "connected to the broker");
        self.board.complaints.clear(Fault::Away, self.number);
        Ok(connection)
    }

    /// Notes that an attempt failed or a connection ended; returns the pause before the next attempt, which
    /// uses the next address.
    pub(crate) fn lost(&mut self, error: &ConnectionError) -> Duration {
        let lasted = self.lasted();
        if lasted {
            self.backoff.reset();
            self.failures = 0;
        }
        self.up_since = None;
        self.failures += 1;
        let broker = self.url().clone();
        let sentence = format!("{broker}: {error}");
        let addresses = self.config.url.all().len();
        self.address = (self.address + 1) % addresses;
        // Back off after a round through all addresses, not because one of several nodes is down.
        let pause = if self.failures.is_multiple_of(addresses) {
            self.backoff.next_pause()
        } else {
            BEFORE_ANOTHER_ADDRESS.mul_f64(rand::rng().random_range(0.0..=1.0))
        };
        self.board
            .complaints
            .raise(Fault::Away, self.number, sentence);
        if self.absence.lost(lasted) {
            warn!(connection = self.name, %broker, %error, "the broker is away; trying again until it is back");
        } else {
            debug!(connection = self.name, %broker, %error, ?pause, "the broker is away");
        }
        pause
    }

    /// Whether the current connection has lasted for long.
    pub(crate) fn lasted(&self) -> bool {
        self.up_since
            .is_some_and(|since| since.elapsed() >= LASTING)
    }
}

/// Tells this process, and each start in it, apart from all others that use the same broker.
pub(crate) fn process_mark() -> u32 {
    rand::random()
}
