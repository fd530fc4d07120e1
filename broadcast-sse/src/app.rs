//! All routes on one page.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, RawQuery, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use chat_model::ChannelId;
use service_kit::{
    access::AccessPolicy,
    http::Offer,
    lifecycle::Lifecycle,
    operations::RequestMetrics,
    problem::{self, Problem},
};
use tokio::sync::{Notify, Semaphore};

use crate::{
    access::{Caller, may_listen},
    hub::{Bell, Hub, Listener, Start, TooManyChannels},
    metrics::Metrics,
    paths,
    permit::StreamPermit,
    query::{self, QueryError, QueryLimits, StreamQuery},
    stream::{self, EventStream, Form},
    writers::Writers,
};

/// What the handlers need; shared as a whole, because axum clones it for every request.
pub(crate) struct App {
    pub(crate) hub: Arc<Hub>,
    /// What streams are written by, where their sockets can be had.
    pub(crate) writers: Writers<EventStream>,
    pub(crate) limits: QueryLimits,
    /// One permit for each stream that may be open.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lifecycle: Lifecycle,
}

/// The service's paths, and around them, from the inside: problems and request ids, access, metrics.
pub(crate) fn router(app: App, requests: &RequestMetrics, access: AccessPolicy) -> Router {
    let routes = Router::new()
        .route("/", get(events))
        .route("/events", get(events))
        .route("/events/", get(events))
        .route("/chat/receive/{channel}", get(legacy))
        .with_state(Arc::new(app));
    problem::guarded(routes, paths::meant, access, requests)
}

async fn events(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let query = query::parse(
        query.as_deref().unwrap_or_default(),
        last_event_id(&request),
        app.limits,
    )
    .map_err(|error| bad_query(&error))?;
    app.stream(&query, Form::Events, Offer::get(request.extensions()))
}

/// The older system's stream of one channel.
async fn legacy(
    State(app): State<Arc<App>>,
    Path(channel): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let query = StreamQuery::of_channel(&channel, last_event_id(&request))
        .map_err(|error| bad_query(&error))?;
    app.stream(&query, Form::Legacy, Offer::get(request.extensions()))
}

fn last_event_id(request: &Request) -> Option<&[u8]> {
    let value = request.headers().get("last-event-id");
    value.map(HeaderValue::as_bytes)
}

impl App {
    fn stream(
        &self,
        query: &StreamQuery,
        form: Form,
        offer: Option<Offer>,
    ) -> Result<Response, Problem> {
        let caller = Caller::Guest;
        if let Some(channel) = query
            .channels
            .iter()
            .find(|channel| !may_listen(&caller, **channel))
        {
            return Err(forbidden(*channel));
        }
        let full = self.streams.clone().try_acquire_owned();
        let (Ok(permit), false) = (full, self.lifecycle.is_shutting_down()) else {
            self.metrics.streams_refused.inc();
            return Ok(event_stream(Body::from(stream::come_back_later())));
        };
        let permit = StreamPermit::new(permit, self.metrics.clone());
        let starts = query.starts();
        let Some(offer) = offer else {
            let bell = Arc::new(Notify::new());
            let listener = self.listen(&starts, bell.clone())?;
            let stream = EventStream::new(listener, form, permit);
            let body = stream.into_body(bell, self.hub.pings(), &self.lifecycle);
            return Ok(event_stream(Body::from_stream(body)));
        };
        let slot = self.writers.reserve();
        let listener = self.listen(&starts, slot.clone())?;
        let mut stream = EventStream::new(listener, form, permit);
        let first = stream.beginning();
        let take = move |taken| slot.adopt(taken, stream.framed(offer.framing));
        Ok(offer.accept(event_stream(Body::empty()), first, take))
    }

    fn listen(
        &self,
        starts: &[(ChannelId, Start)],
        bell: Arc<dyn Bell>,
    ) -> Result<Listener, Problem> {
        self.hub.listen(None, starts, bell).map_err(|error| {
            self.metrics.streams_refused.inc();
            too_many_channels(error)
        })
    }
}

/// Neither caches nor proxies may keep or change a stream; nginx is told not to collect it.
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
    let problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too-many-channels",
        "There is no room for so many more channels",
    );
    problem
        .detail(format!("{error}; come back later, or with fewer"))
        .retry_after(Duration::from_secs(10))
}

fn forbidden(channel: ChannelId) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        "You may not listen to this channel",
    )
    .detail(format!("{channel} is not open to you"))
}
