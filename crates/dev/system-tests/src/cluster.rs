use std::net::SocketAddr;

use test_kit::Postgres;

use crate::chain::stream_url;
use crate::{Node, Sender};

mod broker;
mod front;
mod link;

pub use broker::Broker;
pub use front::Front;
pub use link::Link;

/// What a [`Cluster`] consists of.
#[derive(Debug, Clone)]
pub struct Size {
    /// How many chat-service, each with the same database.
    pub chat: usize,
    /// How many broadcast-sse.
    pub sse: usize,
    /// How many nodes the broker has: one is mosquitto, three are RabbitMQ.
    pub broker_nodes: usize,
    /// Whether every connection between two of them can be broken.
    pub breakable: bool,
    /// Whether the database has a replica.
    pub replica: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            chat: 2,
            sse: 3,
            broker_nodes: 1,
            breakable: false,
            replica: false,
        }
    }
}

/// Several chat-service on one PostgreSQL, several broadcast-sse, a broker
/// between them and nginx in front of all.
pub struct Cluster {
    /// The database.
    pub store: Postgres,
    /// Its replica, and what it follows the database over.
    pub replica: Option<(Postgres, Link)>,
    /// The broker.
    pub broker: Broker,
    /// The chat-service.
    pub chat: Vec<Node>,
    /// The broadcast-sse.
    pub sse: Vec<Node>,
    /// nginx.
    pub front: Front,
    /// The connections, if they can be broken.
    pub links: Links,
}

/// The connections within a breakable [`Cluster`], one for each node that makes
/// them; empty in others.
#[derive(Default)]
pub struct Links {
    /// chat-service to the database, and to its replica if there is one.
    pub chat_to_store: Vec<Link>,
    /// chat-service to the broker.
    pub chat_to_broker: Vec<Link>,
    /// broadcast-sse to the broker.
    pub sse_to_broker: Vec<Link>,
    /// broadcast-sse to the chat-service.
    pub sse_to_chat: Vec<Link>,
}

impl Links {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Link> {
        let both = self.chat_to_store.iter().chain(&self.chat_to_broker);
        both.chain(&self.sse_to_broker).chain(&self.sse_to_chat)
    }
}

impl Cluster {
    /// Starts everything, on free ports and in folders of their own.
    ///
    /// # Panics
    /// When something is not installed or does not start.
    pub async fn start(size: Size) -> Self {
        let (store, broker) = tokio::join!(Postgres::start(), Broker::start(size.broker_nodes));
        let replica = if size.replica {
            let link = Link::to("replica to database", &[store.address()]).await;
            let replica = store.replica_through(link.addresses()[0]).await;
            Some((replica, link))
        } else {
            None
        };
        store.run("postgres", "CREATE DATABASE hark").await;
        let mut stores = vec![store.address()];
        stores.extend(replica.iter().map(|(replica, _)| replica.address()));
        let brokers = broker.addresses();
        let mut links = Links::default();
        let broken = size.breakable;
        let mut chat = Vec::new();
        for number in 0..size.chat {
            let name = format!("chat-service {number}");
            let to_store = via(&mut links.chat_to_store, broken, &name, "store", &stores).await;
            let to_broker = via(&mut links.chat_to_broker, broken, &name, "broker", &brokers).await;
            let node =
                Node::chat_service_on_postgres(&urls("mqtt", &to_broker), &store_url(&to_store));
            chat.push(node.started().await);
        }
        let addresses = |nodes: &[Node]| nodes.iter().map(Node::address).collect::<Vec<_>>();
        let chats = addresses(&chat);
        let mut sse = Vec::new();
        for number in 0..size.sse {
            let name = format!("broadcast-sse {number}");
            let to_broker = via(&mut links.sse_to_broker, broken, &name, "broker", &brokers).await;
            let to_chat = via(&mut links.sse_to_chat, broken, &name, "chat", &chats).await;
            let history = urls("http", &to_chat);
            let node = Node::broadcast_sse(&urls("mqtt", &to_broker), &history)
                .env("HARK_SUBSCRIBE__MODE", "per-channel");
            sse.push(node.started().await);
        }
        let front = Front::start(&chats, &addresses(&sse)).await;
        Self {
            store,
            replica,
            broker,
            chat,
            sse,
            front,
            links,
        }
    }

    /// Someone who posts to whichever chat-service nginx chooses.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::to(format!("http://{}", self.front.address()))
    }

    /// The URL of a stream of these channels on whichever broadcast-sse nginx chooses.
    #[must_use]
    pub fn stream(&self, channels: &[&str]) -> String {
        stream_url(&format!("http://{}", self.front.address()), channels)
    }

    /// The URL of a stream of these channels on this broadcast-sse.
    #[must_use]
    pub fn stream_on(&self, sse: usize, channels: &[&str]) -> String {
        stream_url(&self.sse[sse].url(), channels)
    }
}

/// Where a node reaches these: directly, or over a link that is kept.
async fn via(
    links: &mut Vec<Link>,
    breakable: bool,
    node: &str,
    to: &str,
    upstreams: &[SocketAddr],
) -> Vec<SocketAddr> {
    if !breakable {
        return upstreams.to_vec();
    }
    let link = Link::to(format!("{node} to {to}"), upstreams).await;
    let addresses = link.addresses();
    links.push(link);
    addresses
}

fn urls(scheme: &str, addresses: &[SocketAddr]) -> String {
    let urls = addresses.iter().map(|at| format!("{scheme}://{at}"));
    urls.collect::<Vec<_>>().join(",")
}

/// All servers of the database, of which the one that takes writes is meant.
fn store_url(stores: &[SocketAddr]) -> String {
    let hosts: Vec<_> = stores.iter().map(ToString::to_string).collect();
    format!("postgres://{}@{}/hark", Postgres::USER, hosts.join(","))
}
