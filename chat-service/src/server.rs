use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Extension;
use chat_mqtt::Publisher;
use chat_store::{OpenError, Store};
use clock::SharedClock;
use http_server::access::AccessPolicy;
use http_server::http::{self, BindError, HttpOptions, Shares};
use http_server::operations::{Health, Operations, RequestMetrics};
use rights::{Open, Rights};
use service_kit::config::ConfigError;
use service_kit::lifecycle::Lifecycle;
use service_kit::tls::{ServerTls, TlsError};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::budget::Budget;
use crate::config::Config;
use crate::ingest::{Ingest, PostMetrics};
use crate::metrics::Snapshot;
use crate::outbox::{self, Bounds, Gauges, OutboxTask, Standing};
use crate::rate_limit::RateLimiter;
use crate::reads::Reads;
use crate::rest::{self, AppState, Neighbour};

/// How long publishing continues after the last answer. The rest is published after the next start.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Why the service cannot start. The text says what to do.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The service cannot listen on the address.
    #[error("{0}: setting `listen`")]
    Bind(#[from] BindError),
    /// The authorities for the broker's certificate cannot be used.
    #[error("mqtt.ca_file: {0}")]
    Trust(#[from] TlsError),
    /// The certificate and key cannot be used.
    #[error(transparent)]
    Certificate(TlsError),
    /// The data folder or the database cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// chat-service with its store open and its address bound, but not yet running.
pub struct Server {
    config: Config,
    clock: SharedClock,
    operations: Operations,
    store: Arc<dyn Store>,
    listener: TcpListener,
    local_addr: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    /// For other services in the same process.
    inside: Option<TcpListener>,
    broker: BrokerView,
}

/// The publisher, for the readiness check of the broker; empty until the server runs.
type BrokerView = Arc<OnceLock<Publisher>>;

impl Server {
    /// Opens the store and listens. Metrics and readiness go to `operations`, which the caller serves.
    ///
    /// # Errors
    /// [`StartError`], which says what to do.
    pub async fn bind(
        config: Config,
        clock: SharedClock,
        operations: Operations,
    ) -> Result<Self, StartError> {
        config.validate()?;
        config.mqtt.trust()?;
        let tls = config.tls.load().map_err(StartError::Certificate)?;
        let listener = http::bind(config.listen)?;
        let local_addr = listener.local_addr().map_err(|source| BindError::Other {
            addr: config.listen,
            source,
        })?;
        let store = config.store.open(clock.clone()).await?;
        let broker = BrokerView::default();
        add_checks(&operations, Arc::clone(&store), Arc::clone(&broker));
        Ok(Self {
            config,
            clock,
            operations,
            store,
            listener,
            local_addr,
            tls,
            inside: None,
            broker,
        })
    }

    /// The URL for posts and history, with the actual port if the setting was 0.
    pub fn url(&self) -> String {
        http::url(self.local_addr, self.tls.is_some())
    }

    /// Also listens on a free loopback port, without TLS, for other services in the same process: they
    /// cannot know which name the certificate is for, and the limits for strangers do not apply to them.
    /// Returns the address.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn listen_inside(&mut self) -> Result<SocketAddr, BindError> {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = http::bind(addr)?;
        let bound = listener.local_addr();
        self.inside = Some(listener);
        bound.map_err(|source| BindError::Other { addr, source })
    }

    /// The address, with the actual port if the setting was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until shutdown. Then it answers the requests under way, publishes what was stored, closes the
    /// store, and returns.
    pub async fn run(self, life: Lifecycle) {
        let Self {
            config,
            clock,
            operations,
            store,
            listener,
            local_addr,
            tls,
            inside,
            broker,
        } = self;
        // Publishing must outlive the last request.
        let later = life.later_stage();
        let publisher = Publisher::start(
            &config.mqtt,
            config.outbox.connections,
            config.limits.message,
            &later,
        );
        let rights: Arc<dyn Rights> = Arc::new(Open);
        let ingest = Ingest::new(
            store.clone(),
            Arc::clone(&rights),
            RateLimiter::new(config.post_limits()),
            clock.clone(),
            PostMetrics::register(&operations),
            publisher.state(),
            config.limits.message,
        );
        let reads = RateLimiter::new(config.read_limits());
        let reads = Reads::new(store.clone(), rights, reads, clock);
        let gauges = Arc::new(Gauges::default());
        let snapshot = Snapshot {
            store: Arc::clone(&store),
            publisher: publisher.clone(),
            outbox: Arc::clone(&gauges),
        };
        operations.register(|registry| registry.register_collector(Box::new(snapshot)));
        broker.get_or_init(|| publisher.clone());

        let bounds = Bounds {
            events: config.outbox.in_flight,
            bytes: config.outbox.in_flight_bytes,
        };
        let outbox = OutboxTask::new(
            store.clone(),
            publisher.clone(),
            bounds,
            Arc::clone(&gauges),
        );
        let (ended, outbox_end) = oneshot::channel::<()>();
        let soft = later.soft();
        later.spawn("outbox", async move {
            outbox.run(soft).await;
            drop(ended);
        });

        let state = AppState {
            ingest,
            reads,
            outbox: Standing::new(store.clone(), gauges, publisher.clone()),
            limits: Arc::new(config.limits.clone()),
            bodies: Budget::new(config.limits.bodies),
            answers: Budget::new(config.limits.answers),
        };
        // A broken store never accepts anything again, so the process must end and be started again.
        let (watched, soft) = (Arc::clone(&store), later.soft());
        later.spawn("store", async move {
            soft.run_until_cancelled(watched.broken()).await;
        });
        let requests = RequestMetrics::register(&operations, "hark_chat");
        let access = AccessPolicy::new(&config.access, local_addr, tls.is_some());
        let router = rest::router(state, &requests, access);
        let options = HttpOptions {
            tls,
            ..config.http_options()
        };
        let serve_inside = async {
            if let Some(inside) = inside {
                let options = HttpOptions {
                    shares: Shares::default(),
                    ..config.http_options()
                };
                let router = router.clone().layer(Extension(Neighbour));
                http::serve(inside, router, options, &life).await;
            }
        };
        tokio::join!(
            http::serve(listener, router.clone(), options, &life),
            serve_inside
        );

        let hard = life.hard();
        let drain = timeout(DRAIN_TIME, outbox::drained(&*store, publisher.state()));
        if let Some(Err(_late)) = hard.run_until_cancelled(drain).await {
            tracing::warn!("not everything is published; the rest follows after the next start");
        }
        later.shutdown();
        // Nothing is ever sent; this waits for the end of the task.
        drop(outbox_end.await);
        store.close().await;
    }
}

fn add_checks(operations: &Operations, store: Arc<dyn Store>, broker: BrokerView) {
    let damage_of = Arc::clone(&store);
    operations.add_check("store", move || {
        let store = Arc::clone(&store);
        async move {
            match store.check().await {
                Ok(()) => Health::Ok,
                Err(error) => Health::Failed(error.to_string()),
            }
        }
    });
    // Damage remains until somebody repairs it; everything else goes on.
    operations.add_check("damage", move || {
        let health = damage_of.damage().map_or(Health::Ok, |what| {
            Health::Degraded(format!(
                "stored data is damaged ({what}): `hark check` lists all of it"
            ))
        });
        std::future::ready(health)
    });
    // Without a broker, posts are still accepted, and listeners find them through the heads.
    operations.add_check("broker", move || {
        let up = broker
            .get()
            .is_some_and(|publisher| publisher.state().borrow().is_up());
        let complaint = broker.get().and_then(Publisher::complaint);
        let health = match (up, complaint) {
            (true, None) => Health::Ok,
            (true, Some(complaint)) => Health::Degraded(complaint),
            (false, complaint) => Health::Degraded(format!(
                "the broker cannot be reached; publishing waits{}",
                complaint.map_or_else(String::new, |why| format!(": {why}"))
            )),
        };
        std::future::ready(health)
    });
}
