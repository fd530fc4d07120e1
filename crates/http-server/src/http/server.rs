use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::io::Errno;
use service_kit::lifecycle::Lifecycle;
use service_kit::log_limit::LogLimit;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::HttpOptions;
use super::connection;
use super::places::Places;
use super::refusal::Refusals;
use super::visit::Visit;

/// How long accepting pauses when descriptors or memory run out.
const PAUSE: Duration = Duration::from_millis(100);

static EXHAUSTED: LogLimit = LogLimit::per_minute(2);
static RESUMED: LogLimit = LogLimit::per_minute(2);

/// Accepts connections and answers their requests until shutdown. On the soft token, accepting stops and
/// connections end after the request under way (an open stream must end by itself). On the hard token,
/// connections are dropped. Returns when the last connection has ended, including those that were
/// [taken over](super::Offer).
///
/// The peer's address is the request extension `ConnectInfo<SocketAddr>`.
pub async fn serve(listener: TcpListener, router: Router, options: HttpOptions, life: &Lifecycle) {
    let (soft, hard) = (life.soft(), life.hard());
    let options = Arc::new(options);
    let places = Places::new(options.max_connections, options.shares.clone());
    if let Some(tls) = options.tls.clone() {
        watch(life, "certificates", tls.keep_fresh());
    }
    let refusals = Refusals::new(life);
    let mut accepting = Accepting::default();
    loop {
        let (stream, peer) = tokio::select! {
            () = soft.cancelled() => break,
            accepted = accepting.accept(&listener, &places) => accepted,
        };
        // This connection waits here, and those after it in the backlog.
        tokio::select! {
            () = soft.cancelled() => break,
            () = places.room() => {}
        }
        if let Err(error) = prepare(&stream, &options) {
            // The client has already left.
            debug!(%peer, %error, "connection lost before it began");
            continue;
        }
        let give_way = CancellationToken::new();
        let Some(place) = places.take(peer.ip(), give_way.clone()) else {
            if options.tls.is_none() {
                refusals.tell(stream);
            }
            continue;
        };
        let visit = Visit {
            peer,
            place,
            router: router.clone(),
            options: Arc::clone(&options),
            soft: soft.clone(),
            hard: hard.clone(),
            give_way,
        };
        life.spawn_transient(connection::run(stream, visit));
    }
    // Connections in the backlog are refused by the kernel from here on.
    drop(listener);
    places.empty().await;
}

/// Runs a task that must run as long as the server. If it ends, the process ends.
fn watch(life: &Lifecycle, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let soft = life.soft();
    life.spawn(name, async move {
        soft.run_until_cancelled(task).await;
    });
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

/// The accepting side. It remembers which problems it has logged, so that each is logged once.
#[derive(Default)]
struct Accepting {
    exhausted: bool,
}

impl Accepting {
    /// When descriptors run out, idle connections are closed, as when places run out.
    async fn accept(
        &mut self,
        listener: &TcpListener,
        places: &Places,
    ) -> (TcpStream, std::net::SocketAddr) {
        loop {
            match listener.accept().await {
                Ok(accepted) => {
                    if self.exhausted {
                        self.exhausted = false;
                        if let Some(left_out) = RESUMED.line() {
                            info!(left_out, "accepting connections again");
                        }
                    }
                    return accepted;
                }
                Err(error) if is_exhaustion(&error) => {
                    if !self.exhausted {
                        self.exhausted = true;
                        if let Some(left_out) = EXHAUSTED.line() {
                            warn!(left_out, %error, "not accepting connections until descriptors or memory are free again");
                        }
                    }
                    places.clear();
                    tokio::time::sleep(PAUSE).await;
                }
                // The connection died in the backlog (accept(2)); others are not affected.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Without this task, the server would keep today's certificates and become useless when they
    /// expire.
    #[tokio::test]
    async fn process_ends_when_nobody_looks_for_new_certificates_any_more() {
        let life = Lifecycle::new();
        watch(&life, "certificates", async { panic!("on purpose") });
        let ended = tokio::time::timeout(Duration::from_secs(20), life.wait(Duration::ZERO));
        let dead = ended.await.expect("the process ends").unwrap_err();
        assert!(dead.panicked);
        assert_eq!(dead.name, "certificates");
    }

    #[tokio::test]
    async fn watched_task_ends_with_the_server() {
        let life = Lifecycle::new();
        watch(&life, "certificates", std::future::pending());
        life.shutdown();
        assert_eq!(life.wait(Duration::from_secs(20)).await, Ok(()));
    }
}
