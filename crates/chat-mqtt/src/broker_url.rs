use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The address of a broker: `mqtt://host:port`, or `mqtts://host:port` with TLS. It contains no user
/// name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BrokerUrl {
    tls: bool,
    /// A name or an address; an IPv6 address has no brackets.
    host: String,
    port: u16,
}

/// One address, or those of several nodes of one broker, separated by commas:
/// `mqtt://a:1883,mqtt://b:1883`. Each connection begins with a random one and moves on to the next
/// whenever one fails. Nodes that do not pass messages to each other are different brokers and do not
/// belong in one list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BrokerUrls(Vec<BrokerUrl>);

/// The text is not the address of an MQTT broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a broker's address as mqtt://host:port, or mqtts://host:port for TLS, with a host name or address and an optional port; separate several by commas, and put the user name into its own key"
)]
pub struct BadBrokerUrl;

/// More addresses than any cluster has nodes.
const MAX_ADDRESSES: usize = 64;

impl BrokerUrl {
    /// The port that IANA has assigned to MQTT.
    const DEFAULT_PORT: u16 = 1883;

    /// The port that IANA has assigned to MQTT over TLS.
    const DEFAULT_TLS_PORT: u16 = 8883;

    /// Whether it uses TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// A host name, an IPv4 address, or an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl BrokerUrls {
    /// All addresses, at least one.
    pub fn all(&self) -> &[BrokerUrl] {
        &self.0
    }

    /// Whether any of them uses TLS.
    pub fn any_tls(&self) -> bool {
        self.0.iter().any(BrokerUrl::is_tls)
    }
}

impl Default for BrokerUrls {
    fn default() -> Self {
        Self(vec![BrokerUrl {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port: BrokerUrl::DEFAULT_PORT,
        }])
    }
}

impl From<std::net::SocketAddr> for BrokerUrls {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(vec![BrokerUrl {
            tls: false,
            host: address.ip().to_string(),
            port: address.port(),
        }])
    }
}

impl FromStr for BrokerUrl {
    type Err = BadBrokerUrl;

    fn from_str(text: &str) -> Result<Self, BadBrokerUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadBrokerUrl)?;
        let (tls, default_port) = match scheme {
            "mqtt" => (false, Self::DEFAULT_PORT),
            "mqtts" => (true, Self::DEFAULT_TLS_PORT),
            _ => return Err(BadBrokerUrl),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = if let Some(v6) = rest.strip_prefix('[') {
            let (host, port) = v6.split_once(']').ok_or(BadBrokerUrl)?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| BadBrokerUrl)?;
            (host, port)
        } else {
            let at = rest.find(':').unwrap_or(rest.len());
            rest.split_at(at)
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| BadBrokerUrl)?,
            None if port.is_empty() => default_port,
            None => return Err(BadBrokerUrl),
        };
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || port == 0 || !host.bytes().all(allowed) {
            return Err(BadBrokerUrl);
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
        })
    }
}

impl FromStr for BrokerUrls {
    type Err = BadBrokerUrl;

    fn from_str(text: &str) -> Result<Self, BadBrokerUrl> {
        let urls: Vec<BrokerUrl> = text
            .split(',')
            .map(|url| url.trim().parse())
            .collect::<Result<_, _>>()?;
        if urls.len() > MAX_ADDRESSES {
            return Err(BadBrokerUrl);
        }
        Ok(Self(urls))
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for BrokerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, url) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            write!(f, "{url}")?;
        }
        Ok(())
    }
}

impl Serialize for BrokerUrls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BrokerUrls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_addresses_read_and_print() {
        for (text, tls, host, port) in [
            ("mqtt://127.0.0.1:1884", false, "127.0.0.1", 1884),
            ("mqtt://broker.example:1883", false, "broker.example", 1883),
            ("mqtts://[::1]:1999", true, "::1", 1999),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.is_tls(), url.host(), url.port()), (tls, host, port));
            assert_eq!(url.to_string(), text);
        }
        assert_eq!("mqtt://broker/".parse::<BrokerUrl>().unwrap().port(), 1883);
        assert_eq!("mqtts://broker".parse::<BrokerUrl>().unwrap().port(), 8883);
        for bad in [
            "",
            "broker:1883",
            "mqttss://broker",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://a:0",
            "mqtt://a:b",
            "mqtt://a:70000",
            "mqtt://user@a",
            "mqtt://a/b",
            "mqtt://[::1",
            "mqtt://[x]:1",
            "mqtt://::1",
            "mqtt://a,mqtt://b",
        ] {
            assert_eq!(bad.parse::<BrokerUrl>(), Err(BadBrokerUrl), "{bad}");
        }
    }

    #[test]
    fn a_list_of_addresses_reads_and_prints() {
        let urls: BrokerUrls = "mqtt://a, mqtts://b:1".parse().unwrap();
        assert_eq!(urls.to_string(), "mqtt://a:1883,mqtts://b:1");
        assert!(urls.any_tls());
        assert!(!BrokerUrls::default().any_tls());
        for bad in ["", "mqtt://a,", ",mqtt://a", "mqtt://a mqtt://b"] {
            assert_eq!(bad.parse::<BrokerUrls>(), Err(BadBrokerUrl), "{bad}");
        }
        let many = ["mqtt://a"; MAX_ADDRESSES + 1].join(",");
        assert_eq!(many.parse::<BrokerUrls>(), Err(BadBrokerUrl));
    }
}
