use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, BrokerConfig};
use chat_model::ChannelId;
use chat_mqtt::{BrokerState, Delivery, MqttConfig, Subscriber, SubscriptionMode};
use chat_service::{Config, Server};
use clock::SystemClock;
use http_server::operations::Operations;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;
use service_kit::lifecycle::Lifecycle;
use tempfile::TempDir;
use test_kit::{FaultProxy, ensure, eventually};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Long enough that only a failure reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Nothing listens at this address.
const NOWHERE: &str = "mqtt://127.0.0.1:1";

/// A data folder and settings that outlive a service.
pub(crate) struct Setup {
    dir: Arc<TempDir>,
    settings: BTreeMap<String, String>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let setup = Self {
            settings: BTreeMap::new(),
            dir,
        };
        let data = setup.data().display().to_string();
        setup
            .set("LISTEN", "127.0.0.1:0")
            .set("STORE__DIR", &data)
            .set("MQTT__URL", NOWHERE)
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Sets `key`, named as in the environment but without `HARK_`.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings
            .insert(format!("HARK_{key}"), value.to_owned());
        self
    }

    pub(crate) fn broker(self, address: SocketAddr) -> Self {
        self.set("MQTT__URL", &format!("mqtt://{address}"))
    }

    /// Trusts X-Forwarded-For, so that each request can name its own client.
    pub(crate) fn behind_a_proxy() -> Self {
        Self::new().set("LIMITS__TRUSTED_PROXIES", "127.0.0.1")
    }

    pub(crate) fn config(&self) -> Config {
        Config::load(None::<&Path>, self.settings.clone()).unwrap()
    }

    pub(crate) async fn start(&self) -> Service {
        let operations = Operations::new();
        let server = Server::bind(self.config(), SystemClock::shared(), operations.clone()).await;
        let mut server = server.unwrap();
        let inside = server.listen_inside().unwrap();
        let address = server.local_addr();
        let life = Lifecycle::new();
        life.spawn("chat-service", server.run(life.clone()));
        Service {
            url: format!("http://{address}"),
            address,
            inside,
            operations,
            client: Client::new(),
            life,
            _dir: Arc::clone(&self.dir),
        }
    }
}

/// A running service; `stop` it, or its store stays open.
pub(crate) struct Service {
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    /// For neighbours in the same process.
    pub(crate) inside: SocketAddr,
    pub(crate) operations: Operations,
    pub(crate) client: Client,
    life: Lifecycle,
    _dir: Arc<TempDir>,
}

impl Service {
    pub(crate) async fn stop(self) {
        self.life.shutdown();
        assert_eq!(self.life.wait(LONG).await, Ok(()));
    }

    pub(crate) fn messages(&self, channel: &str) -> String {
        format!("{}/channels/{channel}/messages", self.url)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post_to(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    /// A request for heads, with this body.
    pub(crate) fn ask_heads(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.post_to("/heads");
        request
            .header("content-type", "application/json")
            .body(body)
    }

    pub(crate) fn post(&self, channel: &str) -> RequestBuilder {
        self.client.post(self.messages(channel))
    }

    pub(crate) fn post_json(
        &self,
        channel: &str,
        body: impl Into<reqwest::Body>,
    ) -> RequestBuilder {
        self.post(channel)
            .header("content-type", "application/json")
            .body(body)
    }

    /// Posts a text and returns the event.
    pub(crate) async fn say(&self, channel: &str, text: &str) -> Value {
        let answer = Answer::of(self.post(channel).body(text.to_owned())).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answer.json()
    }

    /// The answer to `POST /heads`.
    pub(crate) async fn heads(&self, channels: &[&str]) -> Value {
        let body = serde_json::json!({ "channels": channels });
        let answer = Answer::of(self.ask_heads(body.to_string())).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json()
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.operations.metrics_text();
        let mut values = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = values.next().and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Waits until posts are answered with this status.
    pub(crate) async fn until_posts_get(&self, status: StatusCode) {
        eventually!(LONG, {
            let got = Answer::of(self.post(&channel()).body("probe")).await.status;
            ensure!(got == status, "{got}");
            Ok(())
        });
    }
}

/// The same request, sent as the client with this address.
pub(crate) fn of_client(request: RequestBuilder, address: &str) -> RequestBuilder {
    request.header("x-forwarded-for", address)
}

/// The next bytes that the service sends.
pub(crate) async fn next_bytes<const COUNT: usize>(stream: &mut TcpStream) -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    let read = timeout(LONG, stream.read_exact(&mut bytes)).await;
    read.expect("in time").unwrap();
    bytes
}

/// Everything that the service sends until it closes the connection.
pub(crate) async fn until_closed(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let read = timeout(LONG, stream.read_to_string(&mut text)).await;
    read.expect("it closes in time").unwrap();
    text
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = timeout(LONG, request.send())
            .await
            .expect("in time")
            .unwrap();
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.text().await.unwrap(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The value of `Retry-After`, in seconds.
    pub(crate) fn retry_after(&self) -> u64 {
        self.header("retry-after").parse().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that the answer is a problem of this status and type; returns its members.
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{self:?}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        assert!(
            problem["title"].is_string() && problem["detail"].is_string(),
            "{self:?}"
        );
        problem
    }
}

/// A new channel for one test.
pub(crate) fn channel() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The embedded broker behind a proxy that can take it away.
pub(crate) struct TestBroker {
    _broker: Broker,
    direct: SocketAddr,
    pub(crate) proxy: FaultProxy,
}

impl TestBroker {
    pub(crate) async fn start() -> Self {
        Self::with(BrokerConfig::default()).await
    }

    pub(crate) async fn with(config: BrokerConfig) -> Self {
        let config = BrokerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..config
        };
        let broker = Broker::bind(config).await.unwrap();
        let direct = broker.local_addr();
        Self {
            _broker: broker,
            direct,
            proxy: FaultProxy::start(direct).await,
        }
    }

    /// Where services connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Subscribes to everything, past the proxy.
    pub(crate) async fn subscribe(&self) -> Received {
        let config = MqttConfig {
            url: self.direct.into(),
            ..MqttConfig::default()
        };
        let life = Lifecycle::new();
        let (subscriber, deliveries) =
            Subscriber::start(&config, SubscriptionMode::Wildcard, &life);
        // A channel's standing shows when the wildcard itself is live.
        let subscription = subscriber.watch(channel().parse().unwrap());
        let live =
            |standing: &chat_mqtt::Standing| matches!(standing, chat_mqtt::Standing::Live { .. });
        timeout(LONG, subscription.state().wait_for(live))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*subscriber.state().borrow(), BrokerState::Up);
        Received {
            deliveries,
            subscription,
            life,
        }
    }
}

/// What arrives over MQTT.
pub(crate) struct Received {
    deliveries: mpsc::Receiver<Vec<Delivery>>,
    #[expect(dead_code, reason = "watching ends when it is dropped")]
    subscription: chat_mqtt::Subscription,
    life: Lifecycle,
}

impl Drop for Received {
    fn drop(&mut self) {
        self.life.shutdown();
    }
}

impl Received {
    /// Receives until `count` different events of `channel` have arrived, and returns them by number. The
    /// same number must always have the same bytes.
    pub(crate) async fn events(&mut self, channel: &str, count: usize) -> BTreeMap<u64, String> {
        let channel: ChannelId = channel.parse().unwrap();
        let mut events = BTreeMap::new();
        while events.len() < count {
            let batch = timeout(LONG, self.deliveries.recv())
                .await
                .unwrap_or_else(|_| panic!("only {} of {count} events arrived", events.len()))
                .expect("subscribed");
            for delivery in batch.iter().filter(|delivery| delivery.channel == channel) {
                let text = String::from_utf8(delivery.payload.to_vec()).unwrap();
                let event: Value = serde_json::from_str(&text).unwrap();
                let before = events.insert(event["seq"].as_u64().unwrap(), text.clone());
                assert!(before.is_none_or(|before| before == text));
            }
        }
        events
    }
}
