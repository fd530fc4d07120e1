use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::HttpOptions;
use super::connection::{self, Visit};
use super::takeover::Place;
use crate::lifecycle::Lifecycle;

/// How long accepting pauses when descriptors or memory run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and answers their requests until shutdown: on the soft token accepting stops
/// and connections end after the request under way (an open stream must end by itself), on the hard
/// token they are dropped. Returns when the last connection has ended, those that were
/// [taken over](super::Offer) included.
///
/// The peer's address is the request extension `ConnectInfo<SocketAddr>`.
pub async fn serve(listener: TcpListener, router: Router, options: HttpOptions, life: &Lifecycle) {
    let (soft, hard) = (life.soft(), life.hard());
    let options = Arc::new(options);
    let most =
        u32::try_from(options.max_connections.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
    let places = Arc::new(Semaphore::new(most as usize));
    if let Some(tls) = options.tls.clone() {
        let soft = soft.clone();
        life.spawn_transient(async move {
            soft.run_until_cancelled(tls.keep_fresh()).await;
        });
    }
    let mut accepting = Accepting::default();
    loop {
        let place = tokio::select! {
            () = soft.cancelled() => break,
            place = accepting.place(&places) => place,
        };
        let (stream, peer) = tokio::select! {
            () = soft.cancelled() => break,
            accepted = accepting.accept(&listener) => accepted,
        };
        if let Err(error) = prepare(&stream, &options) {
            // The client has gone already.
            debug!(%peer, %error, "connection lost before it began");
            continue;
        }
        let visit = Visit {
            peer,
            place: Place::from(place),
            router: router.clone(),
            options: Arc::clone(&options),
            soft: soft.clone(),
            hard: hard.clone(),
        };
        life.spawn_transient(connection::run(stream, visit));
    }
    // Connections in the backlog are refused by the kernel from here on.
    drop(listener);
    // All are free when the last connection has ended; an error cannot be: it is never closed.
    let _all = places.acquire_many(most).await;
}

fn prepare(stream: &TcpStream, options: &HttpOptions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    Ok(())
}

/// The accept side; remembers what it has complained about, so that each trouble is logged once.
#[derive(Default)]
struct Accepting {
    exhausted: bool,
    full: bool,
}

impl Accepting {
    async fn place(&mut self, places: &Arc<Semaphore>) -> tokio::sync::OwnedSemaphorePermit {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            self.full = false;
            return place;
        }
        if !self.full {
            self.full = true;
            warn!("as many connections as max_connections allows; further ones wait");
        }
        Arc::clone(places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    async fn accept(&mut self, listener: &TcpListener) -> (TcpStream, std::net::SocketAddr) {
        loop {
            match listener.accept().await {
                Ok(accepted) => {
                    if self.exhausted {
                        self.exhausted = false;
                        info!("accepting connections again");
                    }
                    return accepted;
                }
                Err(error) if is_exhaustion(&error) => {
                    if !self.exhausted {
                        self.exhausted = true;
                        warn!(%error, "accepting pauses until descriptors or memory are free again");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                // The connection died in the backlog (accept(2)): it concerns nobody else.
                Err(error) => debug!(%error, "a connection ended before it was accepted"),
            }
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}
