use std::{net::SocketAddr, num::NonZero, sync::Arc};

use axum::Router;
use chat_mqtt::{Subscriber, SubscriptionMode};
use service_kit::{
    access::AccessPolicy,
    config::ConfigError,
    http::{self, BindError, HttpOptions},
    lifecycle::Lifecycle,
    operations::{Health, Operations, RequestMetrics},
};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    app::{self, App},
    config::{Config, SubscribeMode},
    hub::{History, Hub},
    metrics::{BrokerSide, Metrics},
    query::QueryLimits,
    writers::Writers,
};

/// Largest `last` of a stream.
const MAX_NEWEST: u64 = 1_000;

/// broadcast-sse, bound to its address but not yet running.
pub struct Server {
    config: Config,
    listener: TcpListener,
    local_addr: SocketAddr,
    history: History,
    operations: Operations,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The listener is broken.
    #[error("cannot read the address that was bound: {0}")]
    Address(#[from] std::io::Error),
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no HTTP client for history.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Server {
    /// Binds the address. Metrics and readiness go to `operations`, which the caller serves.
    ///
    /// # Errors
    /// With a sentence that says what to do.
    pub fn bind(config: Config, operations: Operations) -> Result<Self, StartError> {
        let history = History::new(config.history.base()?)?;
        let listener = http::bind(config.listen)?;
        let local_addr = listener.local_addr()?;
        Ok(Self {
            config,
            listener,
            local_addr,
            history,
            operations,
        })
    }

    /// The address, with the port that was chosen if it was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves streams until `lifecycle` says to stop; open ones are ended then, each with its own
    /// time to come back.
    pub async fn run(self, lifecycle: Lifecycle) {
        let Self {
            config,
            listener,
            local_addr,
            history,
            operations,
        } = self;
        let mode = match config.subscribe.mode {
            SubscribeMode::Wildcard => SubscriptionMode::Wildcard,
            SubscribeMode::PerChannel => SubscriptionMode::PerChannel {
                connections: config.subscribe.connections,
            },
        };
        let (subscriber, deliveries) = Subscriber::start(&config.mqtt, mode, &lifecycle);
        let metrics = Metrics::register(&operations);
        BrokerSide(subscriber.clone()).register(&operations);
        let broker = subscriber.state();
        let hub = Hub::start(
            &config.hub,
            subscriber,
            deliveries,
            history,
            metrics.clone(),
            &lifecycle,
        );
        operations.add_check("broker", move || {
            let up = broker.borrow().is_up();
            std::future::ready(if up {
                Health::Ok
            } else {
                Health::Degraded("the broker is away: messages come late, from history".to_owned())
            })
        });
        let checked = hub.clone();
        operations.add_check("history", move || {
            let answers = checked.history_answers();
            std::future::ready(if answers {
                Health::Ok
            } else {
                Health::Degraded("chat-service does not answer: new streams wait".to_owned())
            })
        });
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let stall = config.hub.write_stall;
        let writers = Writers::start(processors, stall, &hub.pings(), &lifecycle);
        let app = App {
            hub,
            writers: Arc::new(writers),
            limits: QueryLimits {
                channels: config.hub.max_channels,
                newest: MAX_NEWEST,
            },
            streams: Arc::new(Semaphore::new(config.hub.max_streams)),
            metrics,
            lifecycle: lifecycle.clone(),
        };
        let requests = RequestMetrics::register(&operations, "hark_sse");
        let router: Router =
            AccessPolicy::new(&config.access, local_addr).layer(app::router(app, &requests));
        let options = HttpOptions {
            write_stall: config.hub.write_stall,
            send_buffer: Some(config.hub.send_buffer),
            // A stream that is told to come back later needs a connection as well.
            max_connections: config.hub.max_streams.saturating_add(1_000),
            ..HttpOptions::default()
        };
        http::serve(listener, router, options, &lifecycle).await;
    }
}
