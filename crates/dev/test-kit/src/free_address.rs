use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below the ports that Linux gives to outgoing connections
/// (`net.ipv4.ip_local_port_range` begins at 32768): there, somebody's connection
/// may take a port in the seconds until a slow program binds it.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// An address of 127.0.0.1 that nobody listens on now. For programs that cannot
/// choose a port themselves.
///
/// # Panics
/// When no port is free.
#[must_use]
pub fn free_address() -> SocketAddr {
    for attempt in 0..1_000_u32 {
        // Below the length, so it fits.
        let offset = RandomState::new().hash_one(attempt) % u64::from(PORTS.end - PORTS.start);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS.start + offset as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port in {PORTS:?}")
}
