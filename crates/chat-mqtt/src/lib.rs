//! Sends and receives events over MQTT 3.1.1. A [`Publisher`] confirms each message that the broker
//! has, and a [`Subscriber`] restores its subscriptions after every disconnect.
//!
//! Both treat the broker as transport only; nothing depends on what it remembers. The publisher keeps
//! nothing for later: the caller has the log and publishes again what was not confirmed. The subscriber
//! keeps the filters that it wants in its own registry and sends all of them on every new connection.
//!
//! Both also monitor the path between them. The publisher sends heartbeats on `<prefix>/heartbeat`. A
//! subscriber that is told which heartbeats the broker has accepted can tell whether messages reach it
//! ([`Subscriber::expect_heartbeats`]).
//!
//! It is not a general MQTT client: it has no retained messages, no sessions that outlive a connection,
//! and no MQTT 5. It is the only crate that uses rumqttc, and only for packets and their encoding;
//! `connection.rs` says why it does not use rumqttc's event loop.
//!
//! ```no_run
//! use chat_mqtt::{MqttConfig, Publisher, Standing, Subscriber, SubscriptionMode, Token};
//! use service_kit::lifecycle::Lifecycle;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let lifecycle = Lifecycle::new();
//! let config = MqttConfig::default();
//! let channel = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0".parse()?;
//!
//! let (subscriber, mut deliveries) =
//!     Subscriber::start(&config, SubscriptionMode::PerChannel { connections: 2 }, &lifecycle);
//! let subscription = subscriber.watch(channel);
//! subscription.state().wait_for(|standing| matches!(standing, Standing::Live { .. })).await?;
//!
//! let publisher = Publisher::start(&config, 1, 64 * 1024, &lifecycle);
//! publisher.state().wait_for(|state| state.is_up()).await?;
//! let confirmation = publisher.publish(Token(1), channel, "an event".into()).await;
//! confirmation.await?;
//! let batch = deliveries.recv().await.ok_or("shut down")?;
//! assert_eq!(batch[0].channel, channel);
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod absence;
mod backoff;
mod broker_state;
mod broker_url;
mod complaints;
mod config;
mod connection;
mod packet_size;
mod publisher;
mod session;
mod stream;
mod subscriber;

pub use backoff::Backoff;
pub use broker_state::BrokerState;
pub use broker_url::{BadBrokerUrl, BrokerUrl, BrokerUrls};
pub use config::MqttConfig;
pub use publisher::{Confirmation, NotConfirmed, Publisher, PublisherCounters, Token};
pub use subscriber::{
    Changed, Delivery, Standing, Subscriber, SubscriberCounters, Subscription, SubscriptionMode,
};
