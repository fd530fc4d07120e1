//! Finds out which client a request comes from when proxies stand in between, and what counts as one
//! client.

mod client;

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use client::Client;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses (`10.0.0.7`) and networks (`10.0.0.0/8`, `fd00::/8`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// The proxies whose `X-Forwarded-For` is trusted. Anybody else can write what they like into that
/// header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustedProxies(Networks);

impl TrustedProxies {
    /// The client of a request that came from `peer`.
    ///
    /// The header is read from its end, where the nearest proxy has added its peer. The first address
    /// that does not belong to a trusted proxy is the client's. If an entry cannot be read, the proxy
    /// that added it counts as the client.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if self.0.0.is_empty() {
            return client;
        }
        let lines = headers.get_all(FORWARDED_FOR);
        let lines: Vec<_> = lines.iter().map(|line| line.to_str().ok()).collect();
        let hops = lines
            .into_iter()
            .rev()
            .flat_map(|line| line.unwrap_or("(not text)").rsplit(','));
        for hop in hops {
            if !self.trusts(client) {
                break;
            }
            let Some(address) = address(hop.trim()) else {
                break;
            };
            client = address;
        }
        client
    }

    /// Whose share of what is limited a client with this address takes; `None` for those that may
    /// stand for many: a trusted proxy, and loopback unless `limit_loopback`.
    pub fn share_of(&self, address: IpAddr, limit_loopback: bool) -> Option<Client> {
        let client = Client::new(address);
        let may_be_many = (client.is_loopback() && !limit_loopback) || self.trusts(address);
        (!may_be_many).then_some(client)
    }

    /// Whether this is the address of a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }
}

impl From<Networks> for TrustedProxies {
    fn from(networks: Networks) -> Self {
        Self(networks)
    }
}

impl Networks {
    /// Whether one of them contains this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// An address, perhaps with a port, as proxies write them.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.parse::<IpAddr>().ok();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || {
        let socket: std::net::SocketAddr = text.parse().ok()?;
        Some(socket.ip())
    };
    let address: Option<IpAddr> = bare.or_else(bracketed).or_else(with_port);
    address.map(|address| address.to_canonical())
}

/// The text is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address such as 10.0.0.7 nor a network such as 10.0.0.0/8")]
pub struct NotANetwork(String);

impl FromStr for Networks {
    type Err = NotANetwork;

    /// Addresses and networks separated by commas.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let items = text.split(',').map(str::trim);
        let networks = items.filter(|item| !item.is_empty()).map(network);
        networks.collect::<Result<_, _>>().map(Self)
    }
}

fn network(text: &str) -> Result<IpNet, NotANetwork> {
    let one = text.parse::<IpAddr>().map(IpNet::from);
    one.or_else(|_not_one_address| text.parse())
        .map_err(|_not_a_network| NotANetwork(text.to_owned()))
}

/// As a list in the configuration.
impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::<String>::deserialize(deserializer)?;
        let networks = items.iter().map(|item| network(item.trim()));
        let networks = networks.collect::<Result<_, _>>();
        networks.map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, lines: &[&str]) -> String {
        let trusted = TrustedProxies::from(trusted.parse::<Networks>().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        trusted.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn header_of_a_stranger_is_not_believed() {
        assert_eq!(client("", "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(client("10.0.0.2", "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
    }

    #[test]
    fn client_is_the_last_that_no_trusted_proxy_is() {
        let one = "10.0.0.0/8, ::1";
        assert_eq!(client(one, "10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        // The client's own entries come first.
        assert_eq!(client(one, "10.0.0.1", &["9.9.9.9, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(one, "::1", &["1.2.3.4, 10.0.0.7"]), "1.2.3.4");
        assert_eq!(
            client(one, "10.0.0.1", &["9.9.9.9", "1.2.3.4, 10.1.1.1"]),
            "1.2.3.4"
        );
        assert_eq!(client(one, "10.0.0.1", &["10.0.0.9"]), "10.0.0.9");
        assert_eq!(client(one, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn who_may_stand_for_many_has_no_share() {
        let proxies = TrustedProxies::from("10.0.0.0/8".parse::<Networks>().unwrap());
        let has_share = |address: &str, limit_loopback| {
            let address: IpAddr = address.parse().unwrap();
            let share = proxies.share_of(address, limit_loopback);
            assert!(share.is_none_or(|share| share == Client::new(address)));
            share.is_some()
        };
        assert!(has_share("1.2.3.4", false));
        assert!(!has_share("10.0.0.1", true) && !has_share("::ffff:10.0.0.1", true));
        assert!(!has_share("::1", false) && has_share("::1", true));
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_read() {
        let one = "127.0.0.1";
        assert_eq!(client(one, "127.0.0.1", &["1.2.3.4:567"]), "1.2.3.4");
        assert_eq!(
            client(one, "127.0.0.1", &["[2001:db8::1]:567"]),
            "2001:db8::1"
        );
        assert_eq!(client(one, "127.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(
            client(one, "::ffff:127.0.0.1", &["::ffff:1.2.3.4"]),
            "1.2.3.4"
        );
    }

    #[test]
    fn unreadable_hop_ends_the_search() {
        let all = "0.0.0.0/0";
        assert_eq!(
            client(all, "10.0.0.1", &["1.2.3.4, unknown, 5.6.7.8"]),
            "5.6.7.8"
        );
        assert_eq!(client(all, "10.0.0.1", &["1.2.3.4,,"]), "10.0.0.1");
    }

    #[test]
    fn what_is_no_network_is_refused_by_its_text() {
        let refused = "10.0.0.0/8, proxy".parse::<Networks>().unwrap_err();
        assert!(refused.to_string().contains("\"proxy\""), "{refused}");
    }
}
