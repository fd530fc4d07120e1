use std::fmt;
use std::net::IpAddr;

/// One client. An IPv4 address is one client. An IPv6 /64 is one client, because its owner can use all
/// its addresses. All of loopback is one client: this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// The client that has this address.
    pub fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            address if address.is_loopback() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(v6) => prefix(v6.segments(), 4),
            address @ IpAddr::V4(_) => address,
        })
    }

    /// Whether it is this machine: a local program, or a proxy that stands for many clients.
    pub fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }

    /// Whether it has an IPv4 address.
    pub fn is_ipv4(self) -> bool {
        self.0.is_ipv4()
    }

    /// The first address of the network that one customer of a provider may have: a /48, or a /24 of
    /// IPv4.
    pub fn network(self) -> IpAddr {
        match self.0 {
            IpAddr::V6(v6) => prefix(v6.segments(), 3),
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                IpAddr::from([a, b, c, 0])
            }
        }
    }

    /// A number that no other client has.
    pub fn number(self) -> u64 {
        match self.0 {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        }
    }
}

fn prefix(mut segments: [u16; 8], length: usize) -> IpAddr {
    segments[length..].fill(0);
    IpAddr::from(segments)
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => write!(f, "{v4}"),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::new(text.parse().unwrap())
    }

    #[test]
    fn network_of_ipv6_is_one_client() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::2:3:4:5"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("2001:db8::1:2").to_string(), "2001:db8::/64");
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[test]
    fn loopback_is_one_client() {
        for address in ["::1", "127.0.0.2", "::ffff:127.0.0.1"] {
            assert!(client(address).is_loopback());
            assert_eq!(client(address), client("127.0.0.1"));
        }
    }
}
