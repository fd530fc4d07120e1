//! All routes, and what handlers share.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post as posting};
use chat_model::ChannelId;
use chat_mqtt::Publisher;
use chat_store::Store;
use service_kit::access::AccessPolicy;
use service_kit::client_address::Client;
use service_kit::clock::SharedClock;
use service_kit::http::until_written;
use service_kit::operations::RequestMetrics;
use service_kit::problem::{self, Problem};
use uuid::Uuid;

use crate::budget::Budget;
use crate::config::LimitsConfig;
use crate::ingest::Ingest;
use crate::metrics::PostMetrics;
use crate::outbox::Gauges;
use crate::rate_limit::RateLimiter;
use crate::{heads, history, paths, post, problems};

/// What every handler may use; shared as a whole, because axum clones it for every layer of every
/// request.
pub(crate) struct AppState {
    pub(crate) ingest: Ingest,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: SharedClock,
    pub(crate) limits: Arc<LimitsConfig>,
    /// How often clients may post.
    pub(crate) rate: RateLimiter,
    /// How often they may read.
    pub(crate) reads: RateLimiter,
    /// Bodies that are read, or wait for their answer.
    pub(crate) bodies: Arc<Budget>,
    /// Answers to reading that their clients have not taken yet.
    pub(crate) answers: Arc<Budget>,
    pub(crate) posts: PostMetrics,
    pub(crate) outbox: Arc<Gauges>,
    pub(crate) publisher: Publisher,
}

/// The service's paths, and around them, from the inside: problems and request ids, access, metrics.
pub(crate) fn router(state: AppState, requests: &RequestMetrics, access: AccessPolicy) -> Router {
    let head = get(history::head);
    let messages = get(history::messages).post(post::message);
    // A slash at the end is easily there and means nothing else.
    let routes = Router::new()
        .route("/channels/{channel}", head.clone())
        .route("/channels/{channel}/", head)
        .route("/channels/{channel}/messages", messages.clone())
        .route("/channels/{channel}/messages/", messages)
        .route("/heads", posting(heads::heads))
        .route("/chat/publish/{channel}/{user}", posting(post::older))
        .with_state(Arc::new(state));
    problem::guarded(routes, paths::meant, access, requests)
}

impl AppState {
    /// Who has sent a request.
    pub(crate) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> Client {
        Client::new(self.limits.trusted_proxies.client(peer.ip(), headers))
    }
}

/// On requests that come by the way inside: who asks is a neighbour in this process, for everybody.
#[derive(Clone, Copy)]
pub(crate) struct Neighbour;

/// Leave to read once.
pub(crate) struct Turn {
    /// Whose share of the answers it takes; `None` for those that read for many others.
    reader: Option<Client>,
}

impl Turn {
    /// The answer, of so many bytes, which are held until it has been written.
    pub(crate) fn hold(
        self,
        state: &AppState,
        bytes: usize,
        answer: Response,
    ) -> Result<Response, Problem> {
        let Some(reader) = self.reader else {
            return Ok(answer);
        };
        let mut held = state.answers.hold(reader);
        held.grow(bytes).map_err(problems::too_many_answers)?;
        Ok(until_written(answer, held))
    }
}

impl FromRequestParts<Arc<AppState>> for Turn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        if parts.extensions.get::<Neighbour>().is_some() {
            return Ok(Self { reader: None });
        }
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let Some(ConnectInfo(peer)) = peer else {
            return Err(Problem::internal().caused_by("a request from nowhere"));
        };
        let limits = &state.limits;
        let address = limits.trusted_proxies.client(peer.ip(), &parts.headers);
        if limits.nodes.contains(address) {
            return Ok(Self { reader: None });
        }
        let reader = Client::new(address);
        let taken = state.reads.take(reader, state.clock.monotonic());
        taken.map_err(problems::too_many_reads)?;
        Ok(Self {
            reader: Some(reader),
        })
    }
}

/// `{channel}` of a path.
pub(crate) struct Channel(pub(crate) ChannelId);

impl<S: Send + Sync> FromRequestParts<S> for Channel {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        channel(&params(parts, state).await?).map(Self)
    }
}

/// `{channel}/{user}` of the older system's path.
pub(crate) struct OlderPath {
    pub(crate) channel: ChannelId,
    pub(crate) user: Uuid,
}

impl<S: Send + Sync> FromRequestParts<S> for OlderPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = params(parts, state).await?;
        let text = param(&params, "user");
        // Users are named as channels are.
        let user: ChannelId = text.parse().map_err(|_| problems::not_a_user(text))?;
        Ok(Self {
            channel: channel(&params)?,
            user: user.uuid(),
        })
    }
}

async fn params<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|error| problems::bad_request("path").detail(error.to_string()))
}

fn param<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    let found = params.iter().find(|(param, _)| *param == name);
    found.map_or("", |(_, text)| text)
}

fn channel(params: &RawPathParams) -> Result<ChannelId, Problem> {
    let text = param(params, "channel");
    text.parse()
        .map_err(|error| problems::not_a_channel(text, error))
}
