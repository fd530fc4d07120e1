//! All routes of broadcast-sse. `Accept` is parsed by hand, because only one name matters (decision 30).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, RawQuery, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chat_model::ChannelId;
use http_server::access::AccessPolicy;
use http_server::client_address::Client;
use http_server::http::Offer;
use http_server::operations::RequestMetrics;
use http_server::problem::Problem;
use http_server::router;
use rights::{Caller, Refusal};
use service_kit::lifecycle::Lifecycle;
use service_kit::log_limit::LogLimit;
use tokio::sync::Notify;
use tracing::warn;

use crate::hub::{Hub, ListenError, Listener, Start, TooManyChannels, Waker};
use crate::metrics::Metrics;
use crate::open_streams::{Full, OpenStreams, StreamPlace};
use crate::paths;
use crate::query::{self, QueryError, QueryLimits, StreamQuery};
use crate::stream::{self, EventStream, Form};
use crate::writers::Writers;

/// When a client that has reached its limit of streams should try again.
const WHEN_FULL: Duration = Duration::from_secs(10);

static SHARE_TAKEN: LogLimit = LogLimit::per_minute(2);
static NO_RIGHTS: LogLimit = LogLimit::per_minute(2);
static TOO_MANY_CHANNELS: LogLimit = LogLimit::per_minute(2);

/// What the handlers need. It is shared as a whole, because axum clones it for every request.
pub(crate) struct AppState {
    pub(crate) hub: Arc<Hub>,
    /// Write the streams whose sockets can be taken over.
    pub(crate) writers: Writers<EventStream>,
    pub(crate) limits: QueryLimits,
    /// Limits how many streams may be open.
    pub(crate) streams: Arc<OpenStreams>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lifecycle: Lifecycle,
}

/// The service's paths. The layers around them are, from the inside: problems and request ids, access,
/// metrics.
pub(crate) fn router(app: AppState, requests: &RequestMetrics, access: AccessPolicy) -> Router {
    let routes = Router::new()
        .route("/", get(events))
        .route("/events", get(events))
        .route("/events/", get(events))
        .route("/chat/receive/{channel}", get(legacy))
        .with_state(Arc::new(app));
    router::guarded(routes, paths::meant, access, requests)
}

async fn events(
    State(app): State<Arc<AppState>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let (request, _body) = request.into_parts();
    let query = query::parse(
        query.as_deref().unwrap_or_default(),
        last_event_id(&request),
        app.limits,
    )
    .map_err(|error| bad_query(&error))?;
    app.stream(&query, Form::Events, peer, &request).await
}

/// The stream of one channel under the URL of the older system.
async fn legacy(
    State(app): State<Arc<AppState>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(channel): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (request, _body) = request.into_parts();
    let query = StreamQuery::of_channel(&channel, last_event_id(&request))
        .map_err(|error| bad_query(&error))?;
    app.stream(&query, Form::Legacy, peer, &request).await
}

fn last_event_id(request: &Parts) -> Option<&[u8]> {
    let value = request.headers.get("last-event-id");
    value.map(HeaderValue::as_bytes)
}

impl AppState {
    /// Permission to open one more stream. A client that gets none is told why, or to come back later.
    fn place(&self, peer: SocketAddr, request: &Parts) -> Result<StreamPlace, Option<Problem>> {
        let full = match self.streams.take(peer.ip(), &request.headers) {
            Ok(place) if !self.lifecycle.is_shutting_down() => return Ok(place),
            Ok(_stopping) => None,
            Err(full) => Some(full),
        };
        self.metrics.streams_refused.inc();
        if let Some(Full::Client(client)) = full {
            if let Some(left_out) = SHARE_TAKEN.line() {
                warn!(left_out, %client, "hub.max_streams_per_address reached; if the address is a proxy, name it in limits.trusted_proxies");
            }
            if !wants_a_stream(request) {
                return Err(Some(too_many_streams()));
            }
        }
        Err(None)
    }

    async fn stream(
        &self,
        query: &StreamQuery,
        form: Form,
        peer: SocketAddr,
        request: &Parts,
    ) -> Result<Response, Problem> {
        let place = match self.place(peer, request) {
            Ok(place) => place,
            Err(why) => return refused(why),
        };
        let starts = query.starts();
        let Some(offer) = Offer::get(&request.extensions) else {
            let waker = Arc::new(Notify::new());
            let listener = match self.listen(&place, &starts, waker.clone(), request).await {
                Ok(listener) => listener,
                Err(why) => return refused(why),
            };
            let stream = EventStream::new(listener, form, place);
            let body = stream.into_body(waker, self.hub.pings(), &self.lifecycle);
            return Ok(event_stream(Body::from_stream(body)));
        };
        let slot = self.writers.reserve();
        let listener = match self.listen(&place, &starts, slot.clone(), request).await {
            Ok(listener) => listener,
            Err(why) => return refused(why),
        };
        let mut stream = EventStream::new(listener, form, place);
        let first = stream.beginning();
        let take = move |taken| slot.adopt(taken, stream.framed(offer.framing));
        Ok(offer.accept(event_stream(Body::empty()), first, take))
    }

    /// Adds a listener. A client that would need too many channels is told so, or to come back later.
    async fn listen(
        &self,
        place: &StreamPlace,
        starts: &[(ChannelId, Start)],
        waker: Arc<dyn Waker>,
        request: &Parts,
    ) -> Result<Listener, Option<Problem>> {
        let client = place.client();
        // In open mode callers are unknown, and need not be known.
        let caller = Caller::NOBODY;
        let number = client.map(Client::number);
        let listener = self.hub.listen(&caller, number, starts, waker).await;
        listener.map_err(|error| {
            self.metrics.streams_refused.inc();
            match error {
                ListenError::Refused(Refusal::Forbidden { channel }) => Some(forbidden(channel)),
                ListenError::Refused(error @ Refusal::Unavailable { .. }) => {
                    if let Some(left_out) = NO_RIGHTS.line() {
                        warn!(left_out, "{error}: streams are told to come back later");
                    }
                    None
                }
                ListenError::TooMany(error) => {
                    if let Some(left_out) = TOO_MANY_CHANNELS.line() {
                        let client = client.map(tracing::field::display);
                        warn!(left_out, client, "{error}: hub.known_channels");
                    }
                    (!wants_a_stream(request)).then(|| too_many_channels(error))
                }
            }
        })
    }
}

/// The answer to a client that gets no stream now: why, or when to come back.
fn refused(why: Option<Problem>) -> Result<Response, Problem> {
    match why {
        Some(problem) => Err(problem),
        None => Ok(event_stream(Body::from(stream::come_back_later()))),
    }
}

/// Whether the client accepts only a stream. An `EventSource` does, and it gives up for good on any
/// status but 200.
fn wants_a_stream(request: &Parts) -> bool {
    let mut accepted = request.headers.get_all(header::ACCEPT).iter();
    accepted.any(|types| {
        let types = types.as_bytes().split(|byte| b",;".contains(byte));
        let mut types = types.map(<[u8]>::trim_ascii);
        types.any(|one| one.eq_ignore_ascii_case(b"text/event-stream"))
    })
}

/// The answer for a stream. Neither caches nor proxies may store or change it; nginx is told not to
/// buffer it.
fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store, no-transform"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

fn bad_query(error: &QueryError) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad-stream-query",
        "This stream cannot be opened",
    )
    .detail(error.to_string())
}

fn too_many_channels(error: TooManyChannels) -> Problem {
    let status = match error {
        TooManyChannels::Node => StatusCode::SERVICE_UNAVAILABLE,
        TooManyChannels::Share => StatusCode::TOO_MANY_REQUESTS,
    };
    Problem::new(status, "too-many-channels", "Too many channels")
        .detail(format!("{error}; come back later, or with fewer"))
        .retry_after(WHEN_FULL)
}

fn forbidden(channel: ChannelId) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        "You may not listen to this channel",
    )
    .detail(format!("{channel} is not open to you"))
}

fn too_many_streams() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-streams",
        "Too many streams",
    )
    .detail(
        "this address has reached its limit of streams; close some, or listen to several channels by one \
         stream (?c=…&c=…)",
    )
    .retry_after(WHEN_FULL)
}
