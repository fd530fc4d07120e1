//! The HTTP server, plain or with TLS, HTTP/1 or HTTP/2. Everything that a client can hold (a
//! connection, a request head, a body, an answer that it does not read) has a limit in time or size.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use service_kit::tls::ServerTls;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::TcpListener;

mod body;
mod connection;
mod deadline;
mod guarded;
mod http1;
mod http2;
mod last_time;
mod places;
mod refusal;
mod server;
mod shares;
mod takeover;
mod unread;
mod until_written;
mod visit;

pub use places::Place;
pub use server::serve;
pub use shares::Shares;
pub use takeover::{Framing, Offer, Taken};
pub use until_written::until_written;

/// How many waiting connections the kernel holds while the server is busy. Tokio's default of 128 is
/// too few when a thousand browsers reconnect at once: each dropped SYN costs its client a second.
const BACKLOG: i32 = 4096;

/// Limits of a server. The defaults suit a port that is open to strangers.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Time from the first byte of a request head to its end. For a new connection it begins with the
    /// accept.
    pub header_timeout: Duration,
    /// How long a kept-alive connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Time from the first read of a request body to its end.
    pub body_timeout: Duration,
    /// How long a client may read nothing while there is something to write.
    pub write_stall: Duration,
    /// How often an HTTP/2 client is pinged (RFC 9113, section 6.7). It has `write_stall` to answer.
    pub ping_every: Duration,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may remain unacknowledged by the peer.
    pub user_timeout: Duration,
    /// `SO_SNDBUF` in bytes, as passed to the kernel (Linux doubles it); `None` leaves it automatic.
    pub send_buffer: Option<usize>,
    /// The largest request head in bytes, at least 8192. Larger heads get 431, at the latest when they
    /// are twice as large: the limit applies to the read buffer, which grows in steps.
    pub max_head_bytes: usize,
    /// The most connections at a time. To make room for another, the oldest idle ones are closed; while
    /// none is idle, it waits in the kernel's backlog.
    pub max_connections: usize,
    /// Each client's share of these connections. A client that has used its share loses its own oldest
    /// idle connection when it opens another. While none of its own is idle, the new one gets a 429
    /// (over TLS it is closed).
    pub shares: Shares,
    /// Certificate and key; `None` serves plain HTTP. A plain connection may speak HTTP/2 from its
    /// first byte (RFC 9113, section 3.3), as proxies do.
    pub tls: Option<Arc<ServerTls>>,
    /// Counts the connections that were closed because of `write_stall`. Over HTTP/2, it counts only
    /// those with answers under way.
    pub stalled: Counter,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            ping_every: Duration::from_secs(20),
            user_timeout: Duration::from_secs(30),
            send_buffer: None,
            max_head_bytes: 32 * 1024,
            max_connections: 100_000,
            shares: Shares::default(),
            tls: None,
            stalled: Counter::default(),
        }
    }
}

/// Why the server cannot listen on an address. The text says what to do.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another program listens there.
    #[error(
        "cannot listen on {addr}: the port is taken; stop what uses it (`ss -ltnp` shows it) or choose another port"
    )]
    Taken {
        /// The address.
        addr: SocketAddr,
    },
    /// Not permitted; usually a port below 1024.
    #[error(
        "cannot listen on {addr}: not permitted; ports below 1024 need privileges, choose one above"
    )]
    NotPermitted {
        /// The address.
        addr: SocketAddr,
    },
    /// The machine does not have that address.
    #[error("cannot listen on {addr}: this machine has no such address; use 127.0.0.1 or 0.0.0.0")]
    NoSuchAddress {
        /// The address.
        addr: SocketAddr,
    },
    /// Any other error.
    #[error("cannot listen on {addr}: {source}")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on `addr`; port 0 means any free port. Call it inside a tokio runtime.
///
/// # Errors
/// [`BindError`], which says what to do.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    listen(addr).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { addr },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { addr },
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { addr },
        _ => BindError::Other { addr, source },
    })
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait until the previous process's connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The URL at which clients reach a server on `addr`.
pub fn url(addr: SocketAddr, tls: bool) -> String {
    format!("{}://{addr}", scheme(tls))
}

/// The scheme of a server's URL.
pub fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

/// Raises the soft limit of open files to the hard limit and returns it; `None` means unlimited.
///
/// # Errors
/// When the system refuses.
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    Ok(limit.maximum)
}
