//! An HTTP server that strangers may talk to, plain or by TLS, HTTP/1 or HTTP/2: everything a client can hold on to (a connection, a
//! head, a body, an answer it does not read) has a time or a size at which it ends.

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

/// Waiting connections that the kernel holds while the server is busy. tokio's own 128 is too few
/// for a thousand browsers that reconnect at once: each SYN dropped costs its client a second.
const BACKLOG: i32 = 4096;

/// Limits of a server. The defaults suit an open port.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// From the first byte of a request head (for a new connection: from accepting) to its end.
    pub header_timeout: Duration,
    /// How long a kept-alive connection may wait for its next request.
    pub idle_timeout: Duration,
    /// From the first read of a request body to its end.
    pub body_timeout: Duration,
    /// How long a client may take no byte of what waits to be written.
    pub write_stall: Duration,
    /// How often an HTTP/2 client is asked whether it is still there (RFC 9113, section 6.7). It
    /// then has `write_stall` to answer.
    pub ping_every: Duration,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may go without the peer's acknowledgement.
    pub user_timeout: Duration,
    /// `SO_SNDBUF` in bytes, as the kernel takes it (Linux doubles it); `None` leaves it automatic.
    pub send_buffer: Option<usize>,
    /// Request heads up to this many bytes are read, at least 8192. Beyond, and certainly beyond
    /// twice of it, they get 431: the limit is on the read buffer, which grows in steps.
    pub max_head_bytes: usize,
    /// Connections at a time. For further ones the oldest idle ones are ended; while none is idle they
    /// wait in the kernel's backlog.
    pub max_connections: usize,
    /// Each client's share of them. At it the client's own oldest idle connection gives way; while none
    /// of its own is idle, further ones are told so by a 429 (over TLS: closed).
    pub shares: Shares,
    /// Certificate and key; `None` serves plain HTTP. A plain connection may speak HTTP/2 from its
    /// first byte (RFC 9113, section 3.3), as proxies do.
    pub tls: Option<Arc<ServerTls>>,
    /// Counts the connections that were ended because of `write_stall`; over HTTP/2, those with
    /// answers under way.
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

/// Why an address cannot be listened on. The text says what to do.
#[derive(Debug, Error)]
pub enum BindError {
    /// Something else listens there.
    #[error(
        "cannot listen on {addr}: the port is taken; stop what uses it (`ss -ltnp` shows it) or choose another port"
    )]
    Taken {
        /// The address.
        addr: SocketAddr,
    },
    /// A port below 1024, usually.
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
    /// Anything else.
    #[error("cannot listen on {addr}: {source}")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on `addr`; port 0 is any free port. Call it inside a tokio runtime.
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
    // A restart must not wait for the connections of the process before to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// How clients reach a server on `addr`.
pub fn url(addr: SocketAddr, tls: bool) -> String {
    format!("{}://{addr}", scheme(tls))
}

/// The scheme of a server's URL.
pub fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

/// Raises the soft limit of open files to the hard one and returns it; `None` is unlimited.
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
