use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use http_server::operations::{Health, Operations};
use service_kit::config::ConfigError;
use service_kit::lifecycle::Lifecycle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::BrokerConfig;
use crate::accept::accept;
use crate::clients::Clients;
use crate::guard::GuardState;
use crate::login::OwnLogin;
use crate::metrics::BrokerCollector;
use crate::router::RouterLife;
use crate::session::Shared;
use crate::state::State;
use crate::threads::Threads;
use crate::watch::{FIRST_ANSWER, watch_over};

/// Why the broker does not run. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The settings cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something else listens there.
    #[error(
        "cannot listen on {address}: the port is taken; stop what uses it (`ss -ltnp` shows it) or choose another port: setting `listen`"
    )]
    PortTaken {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The system refuses the address.
    #[error("cannot listen on {address}: {source}: setting `listen`")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses threads or descriptors.
    #[error("cannot start the broker: {0}")]
    Start(#[source] io::Error),
    /// It does not answer.
    #[error("the broker does not answer its first client: {0}")]
    NoAnswer(String),
}

impl BrokerError {
    /// Whether the configuration is to blame.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_))
    }
}

/// The embedded broker, listening and answering.
///
/// It has threads of its own: one that accepts connections and watches over the rest, and those of
/// the router and its clients, which are started again when the router stops working.
pub struct Broker {
    address: SocketAddr,
    state: Arc<State>,
    /// Accepts and watches, as long as this value lives.
    serving: JoinHandle<()>,
    /// Where it does so.
    _threads: Threads,
}

impl Broker {
    /// Starts to listen, and waits until the router answers.
    ///
    /// # Errors
    /// [`BrokerError`]; a taken port has its own.
    pub async fn bind(config: BrokerConfig) -> Result<Self, BrokerError> {
        config.validate()?;
        let guard = GuardState::new(&config);
        Self::start(config, guard).await
    }

    pub(crate) async fn start(
        config: BrokerConfig,
        guard: GuardState,
    ) -> Result<Self, BrokerError> {
        let listener = listen(config.listen)?;
        let address = listener.local_addr().map_err(BrokerError::Start)?;
        let threads = Threads::start("broker", 1).map_err(BrokerError::Start)?;
        let router = RouterLife::start(&config).map_err(BrokerError::Start)?;
        router
            .answers(FIRST_ANSWER)
            .await
            .map_err(BrokerError::NoAnswer)?;
        let state = Arc::new(State {
            clients: Arc::new(Clients::new(
                config.max_connections,
                config.max_connections_per_address,
            )),
            shared: Arc::new(Shared {
                guard: Arc::new(guard),
                own_login: OwnLogin::new(),
                max_packet: config.max_packet,
            }),
            router: watch::Sender::new(Arc::new(router)),
            answers: AtomicBool::new(true),
            restarts: AtomicU64::new(0),
            config,
        });
        let serving = threads.spawn(serve(listener, Arc::clone(&state)));
        info!(%address, "broker listens");
        Ok(Self {
            address,
            state,
            serving,
            _threads: threads,
        })
    }

    /// Where it listens; never port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The log-in by which clients of this process should connect: no flood of strangers takes
    /// their place.
    pub fn own_login(&self) -> OwnLogin {
        self.state.shared.own_login.clone()
    }

    /// Registers `hark_broker_…` metrics and the readiness check `broker`, which says what the
    /// last look at the router found.
    pub fn register(&self, operations: &Operations) {
        let state = Arc::clone(&self.state);
        operations.register(|registry| {
            registry.register_collector(Box::new(BrokerCollector::new(state)));
        });
        let state = Arc::clone(&self.state);
        operations.add_check("broker", move || {
            let answers = state.answers.load(Relaxed);
            async move {
                if answers {
                    Health::Ok
                } else {
                    Health::Failed("the last probe got no answer".to_owned())
                }
            }
        });
    }

    /// Waits for the soft shutdown of `lifecycle`, then ends all connections. A broker that breaks
    /// never ends this earlier: it is started again.
    pub async fn run(self, lifecycle: &Lifecycle) {
        let soft = lifecycle.soft();
        let mut broker = self;
        tokio::select! {
            () = soft.cancelled() => {}
            ended = &mut broker.serving => {
                // A fault of this crate, since neither part returns.
                error!(?ended, "the broker no longer accepts connections; restart the process");
                broker.state.answers.store(false, Relaxed);
                soft.cancelled().await;
            }
        }
    }
}

async fn serve(listener: std::net::TcpListener, state: Arc<State>) {
    match TcpListener::from_std(listener) {
        Ok(listener) => {
            tokio::join!(accept(listener, &state), watch_over(&state));
        }
        Err(error) => error!(%error, "the listener cannot be used"),
    }
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, BrokerError> {
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BrokerError::PortTaken { address },
        _ => BrokerError::Listen { address, source },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use test_kit::eventually;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// CONNECT without its client id, of one byte; SUBSCRIBE to `#`; PUBLISH to a topic that begins with `é`,
    /// which rumqttd 0.20.0 does not survive when the guard lets it through.
    const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01";
    const SUBSCRIBE: &[u8] = b"\x82\x06\x00\x01\x00\x01#\x00";
    const PUBLISH: &[u8] = b"\x30\x05\x00\x02\xc3\xa9!";

    /// Gets CONNACK and SUBACK: from now on the router compares topics with the filter.
    async fn subscribed(broker: &Broker, id: u8) -> std::io::Result<TcpStream> {
        let mut client = TcpStream::connect(broker.local_addr()).await?;
        client.write_all(CONNECT).await?;
        client.write_all(&[id]).await?;
        client.write_all(SUBSCRIBE).await?;
        client.read_exact(&mut [0; 4 + 5]).await?;
        Ok(client)
    }

    #[tokio::test]
    async fn dead_router_is_replaced_behind_the_same_port() {
        let config = BrokerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..BrokerConfig::default()
        };
        let broker = Broker::start(config.clone(), GuardState::asleep(&config))
            .await
            .unwrap();
        for restarts in 1..=2 {
            let mut client = subscribed(&broker, b'x').await.unwrap();
            client.write_all(PUBLISH).await.unwrap();
            eventually!(SOON, {
                test_kit::ensure!(broker.state.restarts.load(Relaxed) == restarts, "not yet");
                Ok(())
            });
            // Its old clients are cut off.
            let _reset_or_end = client.read(&mut [0]).await;
            assert!(broker.state.answers.load(Relaxed));
        }
        subscribed(&broker, b'x').await.unwrap();
    }

    #[tokio::test]
    async fn router_that_hangs_keeps_neither_clients_nor_their_places() {
        let config = BrokerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..BrokerConfig::default()
        };
        let mut broker = Broker::bind(config).await.unwrap();
        let mut clients = Vec::new();
        for id in 0..10 {
            clients.push(subscribed(&broker, id).await.unwrap());
        }
        let router = Arc::clone(&broker.state.router.borrow());
        router.hang().await;
        for client in &mut clients {
            // To "t": the guard answers a PINGREQ by itself.
            client.write_all(b"\x30\x04\x00\x01t!").await.unwrap();
        }
        drop(router);
        // It would notice by itself, after three probes.
        broker.serving.abort();
        let _aborted = (&mut broker.serving).await;
        crate::watch::replace(&broker.state).await;
        eventually!(SOON, {
            let count = broker.state.clients.count();
            test_kit::ensure!(count == 0, "{count} places are taken");
            Ok(())
        });
        let router = Arc::clone(&broker.state.router.borrow());
        router.answers(SOON).await.unwrap();
    }

    #[tokio::test]
    async fn router_whose_threads_are_refused_is_started_later() {
        let config = BrokerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..BrokerConfig::default()
        };
        let broker = Broker::bind(config.clone()).await.unwrap();
        tokio::time::pause();
        let mut tries = 0;
        crate::watch::replace_by(&broker.state, || {
            tries += 1;
            match tries {
                1..=2 => Err(Threads::refused().err().unwrap()),
                _ => RouterLife::start(&config),
            }
        })
        .await;
        assert_eq!(tries, 3);
        tokio::time::resume();
        let router = Arc::clone(&broker.state.router.borrow());
        router.answers(SOON).await.unwrap();
    }
}
