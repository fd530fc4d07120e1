//! What one would write with axum in an afternoon: the baseline of the comparison.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use axum::routing::{get, post};
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// Messages that a listener may be behind.
const CAPACITY: usize = 1024;

type Channels = Arc<Mutex<HashMap<String, broadcast::Sender<String>>>>;
type Parameters = Query<HashMap<String, String>>;

/// Serves until the process is ended.
pub(crate) fn serve() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = http_server::http::bind(([127, 0, 0, 1], 0).into());
        let listener = listener.map_err(io::Error::other)?;
        println!("http http://{}\nready", listener.local_addr()?);
        let router = Router::new()
            .route("/sub", get(subscribe))
            .route("/pub", post(publish))
            .with_state(Channels::default());
        axum::serve(listener, router).await
    })
}

async fn subscribe(
    State(channels): State<Channels>,
    Query(parameters): Parameters,
) -> Sse<impl futures_util::Stream<Item = Result<Event, Infallible>>> {
    let mut receiver = sender(&channels, &parameters).subscribe();
    let stream = async_stream::stream! {
        // One that lags loses messages: that is what this design does.
        loop {
            match receiver.recv().await {
                Ok(message) => yield Ok(Event::default().data(message)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break,
            }
        }
    };
    Sse::new(stream).keep_alive(KeepAlive::default())
}

async fn publish(
    State(channels): State<Channels>,
    Query(parameters): Parameters,
    body: String,
) -> &'static str {
    // An error means that nobody listens.
    sender(&channels, &parameters).send(body).ok();
    "ok"
}

fn sender(channels: &Channels, parameters: &HashMap<String, String>) -> broadcast::Sender<String> {
    let channel = parameters.get("c").cloned().unwrap_or_default();
    let mut channels = channels.lock();
    let sender = channels.entry(channel);
    sender
        .or_insert_with(|| broadcast::channel(CAPACITY).0)
        .clone()
}
