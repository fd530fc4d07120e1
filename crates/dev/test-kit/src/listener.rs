use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use event_stream::Reader;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::Event;

/// What a browser waits before it reconnects when the stream named no `retry:`.
const DEFAULT_RETRY: Duration = Duration::from_secs(3);

type Body = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// An answer at which a browser's `EventSource` gives up for good.
#[derive(Debug)]
pub struct GaveUp {
    /// The status of the answer, with 200 when only its content type was wrong.
    pub status: u16,
    /// The answer's body.
    pub body: String,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the stream was answered with {}: {}",
            self.status, self.body
        )
    }
}

impl std::error::Error for GaveUp {}

/// A client of an event stream that does what a browser's `EventSource` does:
/// it remembers the cursor, and when the connection ends it waits for as long
/// as `retry:` said and asks again, with `Last-Event-ID`. Unlike a browser it panics at a block
/// without data, which others take for an empty event.
pub struct Listener {
    client: reqwest::Client,
    url: String,
    reader: Reader,
    body: Option<Body>,
    pending: VecDeque<Event>,
    headers: reqwest::header::HeaderMap,
    connects: Arc<AtomicUsize>,
    trouble: Option<String>,
}

impl Listener {
    /// A listener that connects when it is first asked for an event.
    ///
    /// # Panics
    /// When no HTTP client can be made.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        // Each listener has a client, and so a connection, of its own.
        let client = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .expect("a client without TLS has nothing that can fail");
        Self {
            client,
            url: url.into(),
            reader: Reader::default(),
            body: None,
            pending: VecDeque::new(),
            headers: reqwest::header::HeaderMap::new(),
            connects: Arc::default(),
            trouble: None,
        }
    }

    /// Begins with this cursor in `Last-Event-ID`, as if it had been received before.
    #[must_use]
    pub fn resuming_from(mut self, cursor: &str) -> Self {
        // As the standard's own `id:` field would set it.
        self.reader
            .read(format!("id: {cursor}\ndata\n\n").as_bytes())
            .expect("a cursor is short");
        self
    }

    /// The cursor with which it would reconnect; empty when there was none.
    #[must_use]
    pub fn cursor(&self) -> &str {
        self.reader.cursor().unwrap_or_default()
    }

    /// The newest `retry:` that was received.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.reader.retry()
    }

    /// How often it has connected with success.
    #[must_use]
    pub fn connects(&self) -> usize {
        self.connects.load(Relaxed)
    }

    /// The same while somebody else has the listener.
    pub(crate) fn counter(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.connects)
    }

    /// The headers of the newest answer.
    #[must_use]
    pub fn headers(&self) -> &reqwest::header::HeaderMap {
        &self.headers
    }

    /// Why the newest connection failed or ended, when it was not an ordinary end.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Aims at another node; used from the next connection on.
    pub fn aim_at(&mut self, url: impl Into<String>) {
        self.url = url.into();
    }

    /// Ends the connection; what was read of it already is still handed out, then
    /// the next call connects again with the cursor.
    pub fn disconnect(&mut self) {
        self.body = None;
        self.reader.restart();
    }

    /// Connects now. `Ok(false)` is a network error, after which a browser tries again.
    ///
    /// # Errors
    /// [`GaveUp`] at any status but 200 and any type but `text/event-stream`.
    pub async fn connect(&mut self) -> Result<bool, GaveUp> {
        self.disconnect();
        let mut request = self
            .client
            .get(&self.url)
            .header("Accept", "text/event-stream");
        if !self.cursor().is_empty() {
            request = request.header("Last-Event-ID", self.cursor());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                self.trouble = Some(format!("{error:?}"));
                return Ok(false);
            }
        };
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").cloned();
        let is_stream = content_type
            .and_then(|value| {
                value
                    .to_str()
                    .map(|value| value.starts_with("text/event-stream"))
                    .ok()
            })
            .unwrap_or(false);
        if status != 200 || !is_stream {
            let body = response
                .text()
                .await
                .unwrap_or_else(|error| error.to_string());
            return Err(GaveUp { status, body });
        }
        self.connects.fetch_add(1, Relaxed);
        self.headers = response.headers().clone();
        self.body = Some(Box::pin(response.bytes_stream()));
        Ok(true)
    }

    /// The next event; when the connection ends, reconnects as a browser does.
    /// Safe to cancel.
    ///
    /// # Errors
    /// [`GaveUp`] where a browser would give up.
    pub async fn next(&mut self) -> Result<Event, GaveUp> {
        loop {
            if let Some(event) = self.next_here().await {
                return Ok(event);
            }
            if self.connects() > 0 || self.trouble.is_some() {
                sleep(self.retry().unwrap_or(DEFAULT_RETRY)).await;
            }
            self.connect().await?;
        }
    }

    /// The next event of the connection that stands; `None` when it has ended or none stands.
    pub async fn next_here(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            match self.body.as_mut()?.next().await {
                Some(Ok(chunk)) => {
                    let events = self.reader.read(&chunk).expect("events are below 4 MiB");
                    self.pending.extend(events.into_iter().map(Event::from));
                    assert!(
                        !self.reader.had_hollow_block(),
                        "several clients make an empty event of a block without data: {}",
                        String::from_utf8_lossy(&chunk)
                    );
                }
                end => {
                    self.trouble = end.map(|error| format!("{error:?}"));
                    self.body = None;
                    self.reader.restart();
                }
            }
        }
    }

    /// Reads, reconnecting, until an event of this kind has come, and returns it.
    ///
    /// # Panics
    /// When none comes within `within`, or where a browser would give up.
    pub async fn expect(&mut self, kind: &str, within: Duration) -> Event {
        let wait = async {
            loop {
                let event = self
                    .next()
                    .await
                    .unwrap_or_else(|gave_up| panic!("{gave_up}"));
                if event.event == kind {
                    return event;
                }
            }
        };
        match tokio::time::timeout(within, wait).await {
            Ok(event) => event,
            Err(_) => panic!(
                "no `{kind}` event within {within:?}; trouble: {:?}",
                self.trouble
            ),
        }
    }
}

/// Opens an event stream and never reads a byte of it; dropping it closes it.
///
/// # Panics
/// When the connection cannot be made.
pub async fn open_without_reading(server: SocketAddr, path_and_query: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    // A window as small as the kernel allows, so that the server feels it soon.
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    let mut stream = socket.connect(server).await.expect("connect to the server");
    let request = format!(
        "GET {path_and_query} HTTP/1.1\r\nHost: {server}\r\nAccept: text/event-stream\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .expect("send the request");
    stream
}
