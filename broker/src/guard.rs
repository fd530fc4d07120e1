//! What stands between strangers and the router of rumqttd.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::{Connect, Error, LastWill, Packet, Protocol, Subscribe, valid_filter};
use tracing::warn;

/// MQTT 3.1.1 as rumqttd reads it, minus the packets that would harm it.
///
/// Its router is one thread, and a panic there ends the broker for everyone; what it keeps for a
/// filter or a session is never freed. So this refuses, by ending the connection, or mends, before
/// the router sees it:
/// - a topic that is empty, has a wildcard or NUL, or begins with a character beyond ASCII (the
///   router cuts it after its first *byte* and panics);
/// - shared subscriptions, whose bookkeeping can panic, and filters that MQTT does not allow;
/// - more distinct filters and more connections than are configured;
/// - client ids with `+ $ # /`, which the router refuses without an answer;
/// - retained messages (taken as ordinary ones) and sessions that outlive their connection (taken
///   as clean ones): both are kept in memory for ever;
/// - a keep-alive of 0, which MQTT allows and rumqttd refuses (taken as the longest, 18 h).
pub(crate) struct Guard {
    inner: V4,
    state: Arc<GuardState>,
    /// Set for the copy that belongs to a connection.
    counted: bool,
    connected: bool,
}

/// Shared by the guards of all connections.
pub(crate) struct GuardState {
    max_connections: usize,
    max_filters: usize,
    connections: AtomicUsize,
    refused: AtomicU64,
    /// The filters that rumqttd has a queue for.
    filters: Mutex<HashSet<String>>,
    /// Lets everything pass: shows what the guard is for.
    #[cfg(test)]
    asleep: bool,
}

impl GuardState {
    pub(crate) fn new(max_connections: usize, max_filters: usize) -> Self {
        Self {
            max_connections,
            max_filters,
            connections: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            filters: Mutex::new(HashSet::new()),
            #[cfg(test)]
            asleep: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn asleep() -> Self {
        Self {
            asleep: true,
            ..Self::new(100, 100)
        }
    }

    /// Connections that stand now, with those that have not said CONNECT.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Whether a further connection would be closed.
    pub(crate) fn is_full(&self) -> bool {
        self.connections() >= self.max_connections
    }

    /// Packets that ended their connection.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Guard {
    pub(crate) fn new(state: Arc<GuardState>) -> Self {
        Self {
            inner: V4,
            state,
            counted: false,
            connected: false,
        }
    }

    fn admit(&mut self, packet: Packet) -> Result<Packet, &'static str> {
        #[cfg(test)]
        if self.state.asleep {
            return Ok(packet);
        }
        match packet {
            Packet::Connect(mut connect, properties, mut will, will_properties, login) => {
                self.admit_connect(&mut connect, will.as_mut())?;
                Ok(Packet::Connect(
                    connect,
                    properties,
                    will,
                    will_properties,
                    login,
                ))
            }
            Packet::Publish(mut publish, properties) => {
                check_topic(&publish.topic)?;
                publish.retain = false;
                Ok(Packet::Publish(publish, properties))
            }
            Packet::Subscribe(subscribe, properties) => {
                self.admit_filters(&subscribe)?;
                Ok(Packet::Subscribe(subscribe, properties))
            }
            other => Ok(other),
        }
    }

    fn admit_connect(
        &mut self,
        connect: &mut Connect,
        will: Option<&mut LastWill>,
    ) -> Result<(), &'static str> {
        if self.connected {
            return Err("a second CONNECT");
        }
        self.connected = true;
        if self.state.connections() > self.state.max_connections {
            return Err("more connections than max_connections");
        }
        if connect.client_id.contains(['+', '$', '#', '/']) {
            return Err("a client id with one of + $ # /");
        }
        connect.clean_session = true;
        if connect.keep_alive == 0 {
            connect.keep_alive = u16::MAX;
        }
        if let Some(will) = will {
            check_topic(&will.topic)?;
            will.retain = false;
        }
        Ok(())
    }

    fn admit_filters(&self, subscribe: &Subscribe) -> Result<(), &'static str> {
        // Nothing can panic while the lock is held.
        let mut known = self
            .state
            .filters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for filter in &subscribe.filters {
            let path = filter.path.as_str();
            if path.starts_with("$share") {
                return Err("a shared subscription");
            }
            if !valid_filter(path) || path.contains('\0') {
                return Err("a filter that MQTT does not allow");
            }
            if !known.contains(path) {
                if known.len() >= self.state.max_filters {
                    return Err("more distinct filters than max_filters");
                }
                known.insert(path.to_owned());
            }
        }
        Ok(())
    }
}

/// A topic that can be published to (MQTT 3.1.1 §4.7), and that the router survives.
fn check_topic(topic: &[u8]) -> Result<(), &'static str> {
    let first = topic.first().ok_or("an empty topic")?;
    if !first.is_ascii() {
        return Err("a topic that begins with a character beyond ASCII");
    }
    if topic.iter().any(|byte| matches!(byte, b'+' | b'#' | 0)) {
        return Err("a topic with a wildcard or NUL");
    }
    std::str::from_utf8(topic)
        .map(drop)
        .map_err(|_| "a topic that is not UTF-8")
}

impl Protocol for Guard {
    fn read_mut(&mut self, stream: &mut BytesMut, max_size: usize) -> Result<Packet, Error> {
        let packet = match self.inner.read_mut(stream, max_size) {
            Err(Error::PayloadSizeLimitExceeded(size)) => {
                self.state.refused.fetch_add(1, Relaxed);
                warn!(
                    size,
                    max_packet = max_size,
                    "closed a connection: packet over the limit"
                );
                return Err(Error::PayloadSizeLimitExceeded(size));
            }
            read => read?,
        };
        self.admit(packet).map_err(|reason| {
            self.state.refused.fetch_add(1, Relaxed);
            warn!(reason, "closed a connection: refused a packet");
            Error::MalformedPacket
        })
    }

    fn write(&self, packet: Packet, write: &mut BytesMut) -> Result<usize, Error> {
        self.inner.write(packet, write)
    }
}

impl Clone for Guard {
    /// rumqttd clones once for each connection, and drops the clone with it.
    fn clone(&self) -> Self {
        self.state.connections.fetch_add(1, Relaxed);
        Self {
            inner: V4,
            state: Arc::clone(&self.state),
            counted: true,
            connected: false,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.counted {
            self.state.connections.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_harm_are_refused() {
        for bad in ["", "\u{e9}t\u{e9}", "chat/+", "#", "a\0b"] {
            assert!(check_topic(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(check_topic(b"a\xff").is_err());
        for good in ["chat/x", "/", "caf\u{e9}", "$SYS/x", "a b"] {
            assert_eq!(check_topic(good.as_bytes()), Ok(()), "{good:?}");
        }
    }
}
