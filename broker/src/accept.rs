use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::session;
use crate::state::State;

/// How long accepting pauses when descriptors or memory run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections, for ever. The listener stays when the router is started again.
pub(crate) async fn accept(listener: TcpListener, state: &State) {
    let mut exhausted = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if exhausted {
                    exhausted = false;
                    info!("accepting MQTT connections again");
                }
                attend(&stream);
                let (client, ended) = state.clients.enter(peer.ip());
                let shared = Arc::clone(&state.shared);
                let router = Arc::clone(&state.router.borrow());
                let door = router.door();
                // Without this, the socket would stay with the threads that accept.
                let Ok(stream) = stream.into_std() else {
                    continue;
                };
                router.spawn(async move {
                    match TcpStream::from_std(stream) {
                        Ok(stream) => {
                            session::serve(stream, peer, client, ended, door, shared).await;
                        }
                        Err(error) => debug!(%error, "a connection could not be taken over"),
                    }
                });
            }
            // The connection died in the backlog (accept(2)): it concerns nobody else.
            Err(error) if is_of_one_connection(&error) => {
                debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                if !exhausted {
                    exhausted = true;
                    warn!(%error, "accepting MQTT connections pauses until descriptors or memory are free again");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Notices a peer that vanished, although its client has turned its keep-alive off, and lets no
/// message wait until the one before has been confirmed.
fn attend(stream: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    let kept = SockRef::from(stream).set_tcp_keepalive(&probes);
    if let Err(error) = kept.and_then(|()| stream.set_nodelay(true)) {
        debug!(%error, "a connection could not be adjusted");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
