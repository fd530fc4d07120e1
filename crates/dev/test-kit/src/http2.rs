use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The answer to a request over HTTP/2, whose body nobody has read.
pub type Unread = Response<Incoming>;

/// One connection of HTTP/2, without TLS, whose client takes of each answer no more than it asks for.
pub struct Http2 {
    requests: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    _connection: JoinSet<()>,
}

impl Http2 {
    /// Connects. A stream and the connection have windows of 64 KiB: so much of answers that nobody
    /// reads is sent.
    ///
    /// # Panics
    /// When there is no connection to be had.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move {
            // Its end shows in the answers.
            drop(connection.await);
        });
        Self {
            requests,
            address,
            _connection: running,
        }
    }

    /// Asks for `path` so many times at once, as the client that `X-Forwarded-For` names: the answers,
    /// whose bodies nobody has read.
    ///
    /// # Panics
    /// When an answer does not come.
    pub async fn ask(&mut self, path: &str, client: &str, times: usize) -> Vec<Unread> {
        let answers = (0..times).map(|_| {
            let request = Request::get(format!("http://{}{path}", self.address));
            let request = request.header("x-forwarded-for", client);
            self.requests
                .send_request(request.body(Full::default()).unwrap())
        });
        // Every one is sent before the first is waited for.
        let answers: Vec<_> = answers.collect();
        let answers = join_all(answers).await.into_iter();
        answers.map(|answer| answer.expect("an answer")).collect()
    }

    /// Posts a text, as the client that `X-Forwarded-For` names.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn post(&mut self, path: &str, client: &str, text: String) -> Unread {
        let request = Request::post(format!("http://{}{path}", self.address));
        let request = request.header("x-forwarded-for", client);
        let request = request.body(Full::from(text)).unwrap();
        self.requests
            .send_request(request)
            .await
            .expect("an answer")
    }
}
