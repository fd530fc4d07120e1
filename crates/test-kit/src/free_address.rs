use std::net::SocketAddr;

/// An address of 127.0.0.1 that nobody listens on now. For programs that cannot
/// choose a port themselves: between this call and theirs someone may take it,
/// which is unlikely, as the kernel hands ports out in turn.
pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener
        .local_addr()
        .expect("a bound listener has an address")
}
