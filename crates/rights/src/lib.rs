//! Who may read and post where: the one question that is asked before a message is stored, a page is
//! read, or a listener is let in.
//!
//! Three places ask it, below every door: `chat_service::ingest`, `chat_service::reads` and the hub
//! of broadcast-sse. A door (REST, a stream, a device) only says who calls. What this is not: how
//! often somebody may ask (the limits of each service), and whose web pages may (the origins of
//! `service-kit`).
//!
//! The first answer is [`Open`]: everybody may do everything.
//!
//! ```
//! use chat_model::ChannelId;
//! use rights::{Action, Caller, Open, Rights};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let channel: ChannelId = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0".parse().unwrap();
//! let rights = Open;
//! assert_eq!(rights.permit(&Caller::default(), Action::Read, &[channel]).await, Ok(()));
//! # }
//! ```

mod decision;

use chat_model::{ChannelId, Sender};

pub use decision::Decision;

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Who the caller says to be, if anybody: nobody has checked it.
    pub claimed: Option<Sender>,
}

/// What a caller wants to do with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Add a message to it.
    Post,
    /// Read its messages, those that were and those that come.
    Read,
}

/// Why a caller may not do what he wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// He has no right to it in this channel.
    #[error("{channel} is not open to you")]
    Forbidden {
        /// The first of those asked for that is refused.
        channel: ChannelId,
    },
    /// It cannot be found out now: ask again later.
    #[error("rights cannot be looked up now: {reason}")]
    Unavailable {
        /// For the log of the service.
        reason: String,
    },
}

/// What answers the question. It is asked once for each post and each page, and once for each
/// stream, so it must be quick, or remember.
pub trait Rights: Send + Sync + 'static {
    /// Whether `caller` may do `action` in all of these channels.
    fn permit<'a>(
        &'a self,
        caller: &'a Caller,
        action: Action,
        channels: &'a [ChannelId],
    ) -> Decision<'a>;
}

/// Everybody may do everything in every channel whose name he knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Rights for Open {
    fn permit<'a>(&'a self, _: &'a Caller, _: Action, _: &'a [ChannelId]) -> Decision<'a> {
        Decision::known(Ok(()))
    }
}
