use std::net::SocketAddr;

use test_kit::FaultProxy;

/// What lies between a process and those that it connects to, all of which it
/// loses together.
pub struct Link {
    name: String,
    proxies: Vec<FaultProxy>,
}

impl Link {
    /// A link to these addresses.
    pub async fn to(name: impl Into<String>, upstreams: &[SocketAddr]) -> Self {
        let mut proxies = Vec::new();
        for upstream in upstreams {
            proxies.push(FaultProxy::start(*upstream).await);
        }
        Self {
            name: name.into(),
            proxies,
        }
    }

    /// Whom it connects with whom.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the process connects, in the order of the upstreams.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.proxies.iter().map(FaultProxy::address).collect()
    }

    /// Ends every connection that stands; new ones work.
    pub fn cut(&self) {
        self.proxies.iter().for_each(FaultProxy::cut);
    }

    /// Ends every connection that stands, and each new one at once.
    pub fn refuse(&self) {
        self.proxies.iter().for_each(FaultProxy::refuse);
    }

    /// Lets no byte through.
    pub fn stall(&self) {
        self.proxies.iter().for_each(FaultProxy::stall);
    }

    /// Ends [`stall`](Self::stall) and [`refuse`](Self::refuse).
    pub fn resume(&self) {
        self.proxies.iter().for_each(FaultProxy::resume);
    }
}
