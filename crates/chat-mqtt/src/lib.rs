//! Events over MQTT 3.1.1: a [`Publisher`] that says when the broker has each message, and a
//! [`Subscriber`] whose subscriptions survive every disconnect.
//!
//! Both treat the broker as transport, not as truth. The publisher keeps nothing for later: the
//! caller has the log and publishes again what was not confirmed. The subscriber keeps what it
//! wants in a registry of its own and tells every new connection all of it.
//!
//! Both also look after the path between them: the publisher sends a heartbeat on
//! `<prefix>/heartbeat`, and a subscriber that is told which ones the broker took knows whether it
//! can hear ([`Subscriber::expect_heartbeats`]).
//!
//! What it is not: a general MQTT client. No retained messages, no sessions that outlive a
//! connection, no MQTT 5. It is the only crate that knows rumqttc, and of it uses the packets and
//! their encoding; why not its event loop is said in `connection.rs`.
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
