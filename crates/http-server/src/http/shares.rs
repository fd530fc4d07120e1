use std::net::IpAddr;

use crate::client_address::{Client, TrustedProxies};

/// How many of a server's connections one [`Client`] may have.
#[derive(Clone, Debug)]
pub struct Shares {
    /// The most connections of one client at a time.
    pub most: usize,
    /// Whether loopback has a share too. If not, it may be a proxy that stands for many clients.
    pub limits_loopback: bool,
    /// Proxies stand for many clients and have no share.
    pub proxies: TrustedProxies,
}

impl Default for Shares {
    /// Each client may use all connections.
    fn default() -> Self {
        Self {
            most: usize::MAX,
            limits_loopback: false,
            proxies: TrustedProxies::default(),
        }
    }
}

impl Shares {
    /// The client whose share a connection counts towards; `None` if it counts towards none.
    pub(super) fn client(&self, peer: IpAddr) -> Option<Client> {
        let client = self.proxies.share_of(peer, self.limits_loopback);
        client.filter(|_| self.most < usize::MAX)
    }
}
