use std::net::IpAddr;

use crate::client_address::{Client, TrustedProxies};

/// How many of a server's connections one [`Client`] may have.
#[derive(Clone, Debug)]
pub struct Shares {
    /// Connections of one client at a time.
    pub most: usize,
    /// Loopback has a share as well; otherwise it may be a proxy that stands for many.
    pub limits_loopback: bool,
    /// They stand for many, and have no share.
    pub proxies: TrustedProxies,
}

impl Default for Shares {
    /// No share is smaller than the whole.
    fn default() -> Self {
        Self {
            most: usize::MAX,
            limits_loopback: false,
            proxies: TrustedProxies::default(),
        }
    }
}

impl Shares {
    /// Whose share a connection takes; `None` if it takes nobody's.
    pub(super) fn client(&self, peer: IpAddr) -> Option<Client> {
        let client = Client::new(peer);
        let is_free = client.is_loopback() && !self.limits_loopback;
        let has_share = self.most < usize::MAX && !is_free && !self.proxies.trusts(peer);
        has_share.then_some(client)
    }
}
