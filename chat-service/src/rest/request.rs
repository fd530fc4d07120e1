//! What handlers share, and what they extract from a request.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use chat_model::ChannelId;
use http_server::client_address::Client;
use http_server::http::until_written;
use http_server::problem::Problem;
use rights::Caller;
use uuid::Uuid;

use super::problems;
use crate::budget::Budget;
use crate::config::LimitsConfig;
use crate::ingest::Ingest;
use crate::outbox::Standing;
use crate::reads::{ReadTurn, Reads};

/// What every handler may use. It is shared as a whole, because axum clones it for every layer of every
/// request.
pub(crate) struct AppState {
    pub(crate) ingest: Ingest,
    pub(crate) reads: Arc<Reads>,
    pub(crate) outbox: Standing,
    pub(crate) limits: Arc<LimitsConfig>,
    /// Limits bodies that are being read or wait for their answer.
    pub(crate) bodies: Arc<Budget>,
    /// Limits answers to reads that their clients have not read yet.
    pub(crate) answers: Arc<Budget>,
}

impl AppState {
    /// The client that sent a request.
    pub(crate) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> Client {
        Client::new(self.limits.trusted_proxies.client(peer.ip(), headers))
    }

    /// The client that reads; `None` if it reads for many others.
    fn reader(&self, parts: &Parts) -> Result<Option<Client>, Problem> {
        if parts.extensions.get::<Neighbour>().is_some() {
            return Ok(None);
        }
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let Some(ConnectInfo(peer)) = peer else {
            return Err(Problem::internal().caused_by("a request without a peer address"));
        };
        let limits = &self.limits;
        let address = limits.trusted_proxies.client(peer.ip(), &parts.headers);
        Ok((!limits.nodes.contains(address)).then(|| Client::new(address)))
    }
}

/// Marks requests that arrive on the inside listener: they come from a service in this process, which reads
/// for everybody.
#[derive(Clone, Copy)]
pub(crate) struct Neighbour;

/// Permission to read once.
pub(crate) struct Turn {
    pub(crate) read: ReadTurn,
    pub(crate) caller: Caller,
    /// The client whose shares of bodies and answers it uses; `None` for clients that read for many others.
    pub(crate) reader: Option<Client>,
}

impl Turn {
    /// The answer, of this many bytes, which count towards the client's share until it has been written.
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
        let reader = state.reader(parts)?;
        let read = state.reads.turn(reader).map_err(problems::too_many_reads)?;
        let caller = match reader {
            Some(_) => Caller::NOBODY,
            None => Caller::Node,
        };
        Ok(Self {
            read,
            caller,
            reader,
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
        // Users are named like channels.
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
