use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Flow,
    Stall,
    Refuse,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    upstream: SocketAddr,
    /// Connections of an earlier generation are cut.
    generation: u64,
}

/// A TCP proxy that breaks connections on demand. It listens on a port of its
/// own for as long as it lives, so that its clients see faults and no new address.
pub struct FaultProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    _task: JoinSet<()>,
}

impl FaultProxy {
    /// Listens on a free port of 127.0.0.1 and passes everything to `upstream`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let (state, states) = watch::channel(State {
            mode: Mode::Flow,
            upstream,
            generation: 0,
        });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, states));
        Self {
            address,
            state,
            _task: task,
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection that stands; new ones work.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Ends every connection that stands, and each new one at once.
    pub fn refuse(&self) {
        self.change(Mode::Refuse);
        self.cut();
    }

    /// Lets connections stand, and new ones come, but no byte through: what a
    /// network does that drops every packet.
    pub fn stall(&self) {
        self.change(Mode::Stall);
    }

    /// Ends [`stall`](Self::stall) and [`refuse`](Self::refuse).
    pub fn resume(&self) {
        self.change(Mode::Flow);
    }

    /// Passes new connections to another address; those that stand stay.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.state.send_modify(|state| state.upstream = upstream);
    }

    fn change(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }
}

async fn accept(listener: TcpListener, states: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(connection(client, states.clone()));
                }
                // Out of descriptors, most likely; the test will show what it lacked.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(client: TcpStream, mut states: watch::Receiver<State>) {
    let born = *states.borrow_and_update();
    if born.mode == Mode::Refuse {
        return;
    }
    let mut flowing = states.clone();
    let pass = async move {
        let Ok(opened) = flowing
            .wait_for(|state| state.mode == Mode::Flow)
            .await
            .map(|state| *state)
        else {
            return;
        };
        let Ok(server) = TcpStream::connect(opened.upstream).await else {
            return;
        };
        // Both ends are set as the ends themselves do: a test must not wait for Nagle.
        if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
            return;
        }
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::join!(
            copy(client_read, server_write, flowing.clone()),
            copy(server_read, client_write, flowing)
        );
    };
    tokio::select! {
        () = pass => {}
        // An error means that the proxy itself is gone.
        _ = states.wait_for(|state| state.generation != born.generation) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut states: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 * 1024];
    // Any error ends this direction; dropping `to` tells the other side.
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0
            || states
                .wait_for(|state| state.mode != Mode::Stall)
                .await
                .is_err()
        {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo_server() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut echoes = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                echoes.spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        (address, task)
    }

    async fn echo(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn it_passes_cuts_refuses_and_resumes() {
        let (upstream, _echoes) = echo_server().await;
        let proxy = FaultProxy::start(upstream).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(echo(&mut stream).await.unwrap(), b'x');
        proxy.cut();
        assert!(stream.read_u8().await.is_err());
        proxy.refuse();
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(refused.read_u8().await.is_err());
        proxy.resume();
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(echo(&mut again).await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_stall_holds_bytes_back_and_loses_none() {
        let (upstream, _echoes) = echo_server().await;
        let proxy = FaultProxy::start(upstream).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(echo(&mut stream).await.unwrap(), b'x');
        proxy.stall();
        stream.write_all(b"y").await.unwrap();
        let held = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(held.is_err(), "got {held:?}");
        proxy.resume();
        assert_eq!(stream.read_u8().await.unwrap(), b'y');
    }

    #[tokio::test]
    async fn the_upstream_can_be_switched() {
        let (upstream, _echoes) = echo_server().await;
        let nobody = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let proxy = FaultProxy::start(nobody).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(stream.read_u8().await.is_err());
        proxy.set_upstream(upstream);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(echo(&mut stream).await.unwrap(), b'x');
    }
}
