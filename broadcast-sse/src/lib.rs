//! broadcast-sse: streams the messages of channels to browsers as server-sent events.
//!
//! It subscribes to the channels' MQTT topics, orders what arrives by sequence number, fetches from
//! chat-service what the broker lost, and gives every listener each event once. It keeps nothing on
//! disk: any node can serve any listener, from any cursor.
//!
//! It does not store or publish messages. chat-service does that, and broadcast-sse uses only its public
//! API.

mod app;
mod config;
mod frame;
mod hub;
mod metrics;
mod open_streams;
mod paths;
pub mod query;
mod server;
mod stream;
mod writers;

pub use config::Config;
pub use server::{Server, StartError};

/// What `crates/dev/bench` and `examples/idle_channels.rs` measure; not part of the API.
#[doc(hidden)]
pub mod bench_support {
    use bytes::Bytes;
    use chat_model::{ChannelId, Head};

    use crate::frame::{self, EventFrame};
    use crate::hub::Entry;
    pub use crate::hub::bench::{Dispatch, IdleChannels};

    /// The chunk that is written to every listener of only this channel.
    ///
    /// # Panics
    /// If the line is not an event of the channel.
    pub fn frame(channel: ChannelId, line: &[u8]) -> Bytes {
        let entry = Entry::new(channel, line, frame::event).expect("an event of this channel");
        EventFrame(entry.encoded()).chunk()
    }

    /// A channel with this many listeners, which begin live after this head.
    pub fn dispatch(head: &Head, listeners: usize) -> Dispatch {
        Dispatch::new(head, listeners, frame::event)
    }
}
