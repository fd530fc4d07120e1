//! `#[serde(with = "service_kit::config::listen")]`: an address to listen on.
//!
//! The address decides who can reach a service, so it must be explicit: an IP address and a port, or
//! `localhost` and a port, which means 127.0.0.1. A port alone could mean this machine or everybody, so
//! it is refused, and the error spells out both.

use std::net::{Ipv4Addr, SocketAddr};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};
use thiserror::Error;

/// The text is not an address to listen on. The message says how to write one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "write an IP address and a port: 127.0.0.1:{port} for this machine only, or 0.0.0.0:{port} for everybody \
     who can reach it"
)]
pub struct NotAnAddress {
    /// The port in the text, or an example.
    port: u16,
}

/// Reads an address to listen on.
///
/// # Errors
/// [`NotAnAddress`], also for host names other than `localhost`: which of a name's addresses is meant
/// would depend on the network.
pub fn parse(text: &str) -> Result<SocketAddr, NotAnAddress> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    match port.parse() {
        Ok(port) if host.eq_ignore_ascii_case("localhost") => {
            Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
        port => Err(NotAnAddress {
            port: port.unwrap_or(8080),
        }),
    }
}

/// For serde.
///
/// # Errors
/// As the deserializer's, or [`NotAnAddress`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

/// For serde.
///
/// # Errors
/// As the serializer's.
pub fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_taken() {
        for (text, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::]:8080", "[::]:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            (" LocalHost:1 ", "127.0.0.1:1"),
        ] {
            assert_eq!(parse(text), Ok(address.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_leaves_open_who_may_come_is_refused_with_an_example() {
        for (text, example) in [
            (":8123", "127.0.0.1:8123"),
            ("8123", "0.0.0.0:8123"),
            ("chat.example:8123", "127.0.0.1:8123"),
            ("nonsense", "127.0.0.1:8080"),
            ("", "127.0.0.1:8080"),
            ("localhost:99999", "127.0.0.1:8080"),
        ] {
            let refused = parse(text).unwrap_err().to_string();
            assert!(refused.contains(example), "{text}: {refused}");
        }
    }
}
