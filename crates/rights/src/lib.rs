//! Decides who may read and post in which channel. Hark asks before it stores a message, reads a
//! page, or lets a listener in.
//!
//! Three places ask, all below the doors: `ingest` and `reads` of chat-service, and the hub
//! of broadcast-sse. A door (REST, a stream, a device) only says who calls. This crate does not
//! decide how often somebody may ask (each service has limits for that), or whose web pages may ask
//! (the allowed origins in `http-server`).
//!
//! [`Open`] is the only answer so far: everybody may do everything.
//!
//! ```
//! use chat_model::ChannelId;
//! use rights::{Action, Caller, Open, Rights};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let channel: ChannelId = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0".parse().unwrap();
//! let rights = Open;
//! assert_eq!(rights.permit(&Caller::NOBODY, Action::Read, &[channel]).await, Ok(()));
//! # }
//! ```

mod decision;

use chat_model::{ChannelId, Sender};

pub use decision::Decision;

/// Who is making a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody of whom nothing is known.
    Guest {
        /// Who the caller claims to be, if it claims anything. Not verified.
        claimed: Option<Sender>,
    },
    /// Another part of Hark, which reads for many others: it asks itself who of them may.
    Node,
}

impl Caller {
    /// Somebody who claims nothing.
    pub const NOBODY: Self = Self::Guest { claimed: None };

    /// Whose a message is that the caller posts.
    pub fn sender(&self) -> Option<&Sender> {
        match self {
            Self::Guest { claimed } => claimed.as_ref(),
            Self::Node => None,
        }
    }
}

/// What a caller wants to do with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Add a message to it.
    Post,
    /// Read its messages, past and future.
    Read,
}

/// Why a caller may not do what it wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller has no right to do this in this channel.
    #[error("{channel} is not open to you")]
    Forbidden {
        /// The first of the requested channels that is refused.
        channel: ChannelId,
    },
    /// The answer cannot be determined now: ask again later.
    #[error("rights cannot be looked up now: {reason}")]
    Unavailable {
        /// For the service's log.
        reason: String,
    },
}

/// Decides what a caller may do. It is asked once for each post, each page and each stream, so an
/// implementation must be quick, or cache its answers.
pub trait Rights: Send + Sync + 'static {
    /// Whether `caller` may do `action` in all of these channels.
    fn permit<'a>(
        &'a self,
        caller: &'a Caller,
        action: Action,
        channels: &'a [ChannelId],
    ) -> Decision<'a>;
}

/// Everybody may do everything in every channel whose name they know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Rights for Open {
    fn permit<'a>(&'a self, _: &'a Caller, _: Action, _: &'a [ChannelId]) -> Decision<'a> {
        Decision::known(Ok(()))
    }
}
