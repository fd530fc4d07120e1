use std::net::SocketAddr;

use test_kit::Mosquitto;

/// The broker of a [`Cluster`](crate::Cluster).
pub enum Broker {
    /// One mosquitto.
    Mosquitto(Mosquitto),
}

impl Broker {
    pub(super) async fn start(nodes: usize) -> Self {
        assert_eq!(nodes, 1, "mosquitto has one node");
        Self::Mosquitto(Mosquitto::start().await)
    }

    /// Where each node listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Mosquitto(mosquitto) => vec![mosquitto.address()],
        }
    }

    /// The process of each node.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        match self {
            Self::Mosquitto(mosquitto) => vec![mosquitto.pid()],
        }
    }

    /// Kills a node, as a crash would.
    pub async fn kill(&mut self, _node: usize) {
        match self {
            Self::Mosquitto(mosquitto) => mosquitto.kill().await,
        }
    }

    /// Starts a node again where it was.
    pub async fn restart(&mut self, _node: usize) {
        match self {
            Self::Mosquitto(mosquitto) => mosquitto.restart().await,
        }
    }
}
