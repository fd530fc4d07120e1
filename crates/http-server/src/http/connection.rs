use std::io;

use bytes::Bytes;
use service_kit::tls::ServerTls;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::http1::{self, Transport};
use super::http2;
use super::visit::Visit;

/// Answers the requests of one connection, in whichever protocol the client speaks.
pub(super) async fn run(stream: TcpStream, visit: Visit) {
    let Some(tls) = visit.options.tls.clone() else {
        return speak(stream, visit).await;
    };
    match shake_hands(&tls, stream, &visit).await {
        None => {}
        Some(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            http2::run(stream, Bytes::new(), visit).await;
        }
        Some(Ok(stream)) => speak(stream, visit).await,
        Some(Err(error)) => debug!(peer = %visit.peer, %error, "TLS handshake failed"),
    }
}

/// HTTP/1, unless the client begins with HTTP/2 (RFC 9113, section 3.3).
async fn speak<S: Transport>(stream: S, visit: Visit) {
    if let Some((stream, beginning, visit)) = http1::run(stream, visit).await {
        http2::run(stream, beginning, visit).await;
    }
}

/// `None` when the server stops, or when another client needs this connection's place.
async fn shake_hands(
    tls: &ServerTls,
    stream: TcpStream,
    visit: &Visit,
) -> Option<io::Result<TlsStream<TcpStream>>> {
    tokio::select! {
        () = visit.soft.cancelled() => None,
        () = visit.hard.cancelled() => None,
        () = visit.give_way.cancelled() => None,
        shaken = timeout(visit.options.header_timeout, tls.accept(stream)) => {
            Some(shaken.unwrap_or_else(|late| Err(late.into())))
        }
    }
}
