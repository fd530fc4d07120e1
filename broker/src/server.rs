use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rumqttd::{ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings};
use service_kit::config::ConfigError;
use service_kit::lifecycle::Lifecycle;
use service_kit::operations::{Health, Operations};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::BrokerConfig;
use crate::guard::{Guard, GuardState};
use crate::metrics::BrokerCollector;
use crate::probe::probe;

/// How long the broker may take from start to its first answer.
const START_TIME: Duration = Duration::from_secs(10);

/// How often the threads are looked at, and how often a client's view is taken.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// How long a probe may take, and how many in a row may fail. Together far more than any pause of
/// a busy machine.
const PROBE_TIME: Duration = Duration::from_secs(5);
const PROBE_FAILURES: u32 = 3;

/// How long a client may take to say CONNECT.
const CONNECT_MILLIS: u16 = 5_000;

/// Why the broker does not run (any more). The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The settings cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something else listens there.
    #[error(
        "cannot listen on {address}: the port is taken; stop what uses it (`ss -ltnp` shows it) or choose another port"
    )]
    PortTaken {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The system refuses the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It does not answer.
    #[error("the broker on {address} does not answer its first client: {source}")]
    NoAnswer {
        /// Where it listens.
        address: SocketAddr,
        /// What the first client saw.
        source: io::Error,
    },
    /// It stopped working; only a new process helps.
    #[error(
        "the broker stopped working ({0}); start it again. Nothing stored is lost: the services publish what was not confirmed"
    )]
    Died(String),
}

impl BrokerError {
    /// Whether the configuration is to blame.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_))
    }
}

/// The embedded broker, listening and answering.
///
/// It has threads of its own: a router, which lasts until the process ends (rumqttd has no way to
/// stop it), and two for the network, which end with this value.
pub struct Broker {
    address: SocketAddr,
    guard: Arc<GuardState>,
    /// Whether the last probe was answered.
    answers: Arc<AtomicBool>,
    router_is_gone: Box<dyn Fn() -> bool + Send + Sync>,
    server: JoinHandle<Result<(), String>>,
    /// `None` only while dropping.
    network: Option<Runtime>,
}

impl Broker {
    /// Starts to listen, and waits until a first client got its answer.
    ///
    /// # Errors
    /// [`BrokerError`]; a taken port has its own.
    pub async fn bind(config: BrokerConfig) -> Result<Self, BrokerError> {
        config.validate()?;
        let mut tries = 0;
        loop {
            tries += 1;
            let guard = GuardState::new(config.max_connections, config.max_filters);
            match Self::try_bind(&config, guard).await {
                // Somebody was quicker between choosing the free port and taking it.
                Err(BrokerError::PortTaken { .. }) if config.listen.port() == 0 && tries < 10 => {}
                result => return result,
            }
        }
    }

    async fn try_bind(config: &BrokerConfig, guard: GuardState) -> Result<Self, BrokerError> {
        let address = free_address(config.listen)?;
        let guard = Arc::new(guard);
        let network = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("broker-network")
            .enable_all()
            .build()
            .map_err(|source| BrokerError::Listen { address, source })?;
        let router = Router::new(0, router_config(config)).spawn();
        let to_router = router.clone();
        let mut server = Server::new(
            server_settings(config, address),
            router,
            Guard::new(Arc::clone(&guard)),
        );
        let server = network.spawn(async move {
            server
                .start(LinkType::Remote)
                .await
                .map_err(|error| error.to_string())
        });
        let broker = Self {
            address,
            guard,
            answers: Arc::new(AtomicBool::new(true)),
            // The router owns the receiver; a panic drops it.
            router_is_gone: Box::new(move || to_router.is_disconnected()),
            server,
            network: Some(network),
        };
        broker.first_answer().await?;
        info!(%address, "broker listens");
        Ok(broker)
    }

    /// rumqttd says nowhere that it listens, so a client has to find out.
    async fn first_answer(&self) -> Result<(), BrokerError> {
        let address = self.address;
        let deadline = tokio::time::Instant::now() + START_TIME;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = probe(address, &format!("hark-start-{attempt}"), PROBE_TIME).await;
            // An answer may come from another process that was quicker: then this one's server ended.
            if self.server.is_finished() {
                return Err(BrokerError::PortTaken { address });
            }
            match answer {
                Ok(()) => return Ok(()),
                Err(source) if tokio::time::Instant::now() >= deadline => {
                    return Err(BrokerError::NoAnswer { address, source });
                }
                Err(_not_yet) => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Where it listens; never port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Registers `hark_broker_…` metrics and the readiness check `broker`, which says what the
    /// last probe of [`run`](Self::run) found.
    pub fn register(&self, operations: &Operations) {
        let guard = Arc::clone(&self.guard);
        operations.register(|registry| {
            registry.register_collector(Box::new(BrokerCollector::new(guard)));
        });
        let answers = Arc::clone(&self.answers);
        operations.add_check("broker", move || {
            let answers = answers.load(Relaxed);
            async move {
                if answers {
                    Health::Ok
                } else {
                    Health::Failed("the last probe got no answer".to_owned())
                }
            }
        });
    }

    /// Watches over the broker until the soft shutdown of `lifecycle`, then ends all connections.
    ///
    /// # Errors
    /// [`BrokerError::Died`] when it stopped working before.
    pub async fn run(self, lifecycle: &Lifecycle) -> Result<(), BrokerError> {
        let soft = lifecycle.soft();
        tokio::select! {
            died = self.died() => Err(BrokerError::Died(died)),
            () = soft.cancelled() => Ok(()),
        }
    }

    async fn died(&self) -> String {
        tokio::select! {
            why = self.thread_ended() => why,
            why = self.unresponsive() => why,
        }
    }

    async fn thread_ended(&self) -> String {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if (self.router_is_gone)() {
                return "its router panicked; the message is above".to_owned();
            }
            if self.server.is_finished() {
                return "it no longer accepts connections".to_owned();
            }
        }
    }

    async fn unresponsive(&self) -> String {
        let mut every = interval(PROBE_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        let mut id = 0_u64;
        loop {
            every.tick().await;
            match probe(self.address, &format!("hark-probe-{id}"), PROBE_TIME).await {
                Ok(()) => {
                    failures = 0;
                    self.answers.store(true, Relaxed);
                }
                // Full is not dead.
                Err(_) if self.guard.is_full() => id += 1,
                Err(error) => {
                    failures += 1;
                    id += 1;
                    self.answers.store(false, Relaxed);
                    warn!(%error, failures, "broker did not answer a probe");
                    if failures >= PROBE_FAILURES {
                        return format!("{failures} clients in a row got no answer: {error}");
                    }
                }
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(network) = self.network.take() {
            // Waiting for its threads would block the caller's runtime.
            network.shutdown_background();
        }
    }
}

/// The address with a port that is free now. rumqttd binds by itself, later, and tells nobody
/// whether that worked; so what can be found out is found out before.
fn free_address(listen: SocketAddr) -> Result<SocketAddr, BrokerError> {
    TcpListener::bind(listen)
        .and_then(|listener| listener.local_addr())
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BrokerError::PortTaken { address: listen },
            _ => BrokerError::Listen {
                address: listen,
                source,
            },
        })
}

fn router_config(config: &BrokerConfig) -> RouterConfig {
    RouterConfig {
        // The guard keeps the number; the router, which forgets a connection a little later than
        // the guard, must never be full: it would leave rumqttd in a bad state.
        max_connections: config.max_connections * 2 + 64,
        max_outgoing_packet_count: 200,
        max_segment_size: config.segment_size,
        max_segment_count: config.segments,
        ..RouterConfig::default()
    }
}

fn server_settings(config: &BrokerConfig, listen: SocketAddr) -> ServerSettings {
    ServerSettings {
        name: "mqtt".to_owned(),
        listen,
        tls: None,
        // It would wait this long between two connections.
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: CONNECT_MILLIS,
            max_payload_size: config.max_packet,
            // In truth the number of packets taken from one read.
            max_inflight_count: 500,
            auth: None,
            external_auth: None,
            dynamic_filters: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// CONNECT with the client id `x`; SUBSCRIBE to `#`; PUBLISH to a topic that begins with `é`,
    /// which rumqttd 0.20.0 does not survive when the guard lets it through.
    const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x";
    const SUBSCRIBE: &[u8] = b"\x82\x06\x00\x01\x00\x01#\x00";
    const PUBLISH: &[u8] = b"\x30\x05\x00\x02\xc3\xa9!";

    #[tokio::test]
    async fn a_dead_router_ends_the_broker_with_a_sentence() {
        let config = BrokerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..BrokerConfig::default()
        };
        let broker = Broker::try_bind(&config, GuardState::asleep())
            .await
            .unwrap();
        let mut client = TcpStream::connect(broker.local_addr()).await.unwrap();
        client.write_all(CONNECT).await.unwrap();
        client.write_all(SUBSCRIBE).await.unwrap();
        // CONNACK and SUBACK: from now on the router compares topics with the filter.
        let mut answers = [0; 4 + 5];
        client.read_exact(&mut answers).await.unwrap();
        client.write_all(PUBLISH).await.unwrap();
        let died = broker.run(&Lifecycle::new()).await.unwrap_err();
        assert!(matches!(died, BrokerError::Died(_)), "{died}");
        assert!(died.to_string().contains("router panicked"), "{died}");
    }
}
