use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;

use axum::Router;
use chat_mqtt::{Subscriber, SubscriptionMode};
use http_server::access::AccessPolicy;
use http_server::http::{self, BindError, HttpOptions, Shares};
use http_server::operations::{Health, Operations, RequestMetrics};
use rights::Open;
use service_kit::config::ConfigError;
use service_kit::lifecycle::Lifecycle;
use service_kit::tls::{ServerTls, TlsError};
use tokio::net::TcpListener;

use crate::app::{self, AppState};
use crate::config::{Config, SubscribeMode};
use crate::frame;
use crate::hub::{History, Hub, HubMetrics};
use crate::metrics::{BrokerSide, Metrics};
use crate::open_streams::OpenStreams;
use crate::query::QueryLimits;
use crate::writers::Writers;

/// The largest `last` of a stream.
const MAX_NEWEST: u64 = 1_000;

/// How many connections without a stream one client may have.
const SPARE: usize = 500;

/// broadcast-sse, bound to its address but not yet running.
pub struct Server {
    config: Config,
    listener: TcpListener,
    local_addr: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    history: History,
    metrics: Arc<Metrics>,
    hub_metrics: Arc<HubMetrics>,
    operations: Operations,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server cannot listen on the address.
    #[error("{0}: setting `listen`")]
    Bind(#[from] BindError),
    /// The listener has no readable address.
    #[error("cannot read the address that was bound: {0}")]
    Address(#[from] std::io::Error),
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The authorities for the broker's certificate cannot be used.
    #[error("mqtt.ca_file: {0}")]
    Trust(#[from] TlsError),
    /// The certificate and key cannot be used.
    #[error(transparent)]
    Certificate(TlsError),
}

impl Server {
    /// Binds the address. Metrics and readiness go to `operations`, which the caller serves.
    ///
    /// # Errors
    /// The text says what to do.
    pub fn bind(config: Config, operations: Operations) -> Result<Self, StartError> {
        config.mqtt.trust()?;
        let history_tls = config.history.tls()?;
        let tls = config.tls.load().map_err(StartError::Certificate)?;
        let history = History::new(config.history.bases()?, &history_tls, frame::event);
        let listener = http::bind(config.listen)?;
        let local_addr = listener.local_addr()?;
        Ok(Self {
            config,
            listener,
            local_addr,
            tls,
            history,
            metrics: Metrics::register(&operations),
            hub_metrics: HubMetrics::register(&operations),
            operations,
        })
    }

    /// The URL of the streams, with the actual port if the setting was 0.
    pub fn url(&self) -> String {
        http::url(self.local_addr, self.tls.is_some())
    }

    /// The address, with the actual port if the setting was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves streams until `lifecycle` ends. Open streams are ended then, each with a different time to
    /// reconnect.
    pub async fn run(self, lifecycle: Lifecycle) {
        let options = HttpOptions {
            write_stall: self.config.hub.write_stall,
            send_buffer: Some(self.config.hub.send_buffer),
            // A stream that is told to come back later also needs a connection.
            max_connections: self.config.hub.max_streams.saturating_add(2 * SPARE),
            shares: Shares {
                most: self.config.hub.streams_per_client().saturating_add(SPARE),
                limits_loopback: self.config.limits.limit_loopback,
                proxies: self.config.limits.trusted_proxies.clone(),
            },
            tls: self.tls.clone(),
            stalled: self.metrics.listeners_cut.clone(),
            ..HttpOptions::default()
        };
        let (listener, router) = self.start(&lifecycle);
        http::serve(listener, router, options, &lifecycle).await;
    }

    /// Starts everything behind the routes.
    fn start(self, lifecycle: &Lifecycle) -> (TcpListener, Router) {
        let Self {
            config,
            listener,
            local_addr,
            history,
            metrics,
            hub_metrics,
            operations,
            tls,
        } = self;
        let mode = match config.subscribe.mode {
            SubscribeMode::Wildcard => SubscriptionMode::Wildcard,
            SubscribeMode::PerChannel => SubscriptionMode::PerChannel {
                connections: config.subscribe.connections,
            },
        };
        let (subscriber, deliveries) = Subscriber::start(&config.mqtt, mode, lifecycle);
        BrokerSide(subscriber.clone()).register(&operations);
        let broker = subscriber.clone();
        let hub = Hub::start(
            &config.hub,
            subscriber,
            deliveries,
            history,
            Arc::new(Open),
            hub_metrics,
            lifecycle,
        );
        operations.add_check("broker", move || {
            let up = broker.state().borrow().is_up();
            let health = match (up, broker.complaint()) {
                (true, None) => Health::Ok,
                (true, Some(complaint)) => Health::Degraded(complaint),
                (false, complaint) => Health::Degraded(format!(
                    "the broker is away: messages arrive late, from history{}",
                    complaint.map_or_else(String::new, |why| format!(": {why}"))
                )),
            };
            std::future::ready(health)
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
        let cut = &metrics.listeners_cut;
        let writers = Writers::start(processors, stall, cut, &hub.pings(), lifecycle);
        let app = AppState {
            hub,
            writers,
            limits: QueryLimits {
                channels: config.hub.max_channels,
                newest: MAX_NEWEST,
            },
            streams: OpenStreams::new(&config.hub, config.limits, metrics.clone()),
            metrics,
            lifecycle: lifecycle.clone(),
        };
        let requests = RequestMetrics::register(&operations, "hark_sse");
        let access = AccessPolicy::new(&config.access, local_addr, tls.is_some());
        (listener, app::router(app, &requests, access))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::extract::{ConnectInfo, Request};
    use broker::{Broker, BrokerConfig};
    use tokio_stream::StreamExt;
    use tower::ServiceExt;

    use super::*;

    /// The case of TLS and HTTP/2: there is no bare socket to write to.
    #[tokio::test]
    async fn without_a_socket_of_its_own_a_stream_is_an_ordinary_body() {
        let life = Lifecycle::new();
        let broker = BrokerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..BrokerConfig::default()
        };
        let broker = Broker::bind(broker).await.unwrap();
        let environment = [
            ("HARK_LISTEN", "127.0.0.1:0".to_owned()),
            ("HARK_MQTT__URL", format!("mqtt://{}", broker.local_addr())),
            // Nothing listens on the discard port: history is away.
            ("HARK_HISTORY__URL", "http://127.0.0.1:9".to_owned()),
            ("HARK_HUB__PING", "1s".to_owned()),
        ];
        let broker_life = life.clone();
        life.spawn("broker", async move {
            broker.run(&broker_life).await;
        });
        let environment = environment.map(|(key, value)| (key.to_owned(), value));
        let config = Config::load(None, environment).unwrap();
        let server = Server::bind(config, Operations::new()).unwrap();
        let (_listener, router) = server.start(&life);

        let path = "/events?c=c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0";
        let peer = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9)));
        let request = Request::get(path).header("host", "localhost");
        let request = request.extension(peer);
        let request = request.body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("connection"));
        let mut body = answer.into_body().into_data_stream();
        let mut heard = String::new();
        while !heard.contains("event: ping\ndata: {}\n\n") {
            let part = body.next().await.expect("the stream stays open").unwrap();
            heard.push_str(std::str::from_utf8(&part).unwrap());
        }
        assert!(heard.starts_with("retry: "), "{heard}");
        life.shutdown();
        let mut rest = String::new();
        while let Some(part) = body.next().await {
            rest.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
        }
        let last = rest.trim_end().rsplit("\n\n").next();
        assert!(
            last.is_some_and(|block| block.starts_with("retry: ")),
            "{rest}"
        );
        assert_eq!(life.wait(Duration::from_secs(20)).await, Ok(()));
    }
}
