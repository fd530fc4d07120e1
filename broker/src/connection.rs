//! A client's socket, and what has been read from it and is to be written to it.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::clients::Ended;
use crate::link::RouterGone;
use crate::outbox::Outbox;
use crate::wire::Refusal;

/// Bytes that are read at once, where packets are not larger themselves.
pub(crate) const READ: usize = 10 * 1024;

pub(crate) struct Connection<R, W> {
    pub(crate) reader: R,
    pub(crate) sink: W,
    pub(crate) inbox: BytesMut,
    pub(crate) outbox: Outbox,
    pub(crate) max_packet: usize,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the client left")]
    Left,
    #[error("the connection broke: {0}")]
    Broke(#[from] io::Error),
    #[error("nothing came in time")]
    Silent,
    #[error("it takes nothing")]
    Stalled,
    #[error("{0}")]
    Refused(Refusal),
    #[error("{0:?}")]
    Told(Ended),
    #[error(transparent)]
    Gone(#[from] RouterGone),
}

/// Waits for bytes and gives their number. Loses nothing when it is dropped before.
pub(crate) async fn read_some(
    reader: &mut (impl AsyncRead + Unpin),
    inbox: &mut BytesMut,
) -> Result<usize, End> {
    if inbox.capacity() - inbox.len() < READ / 4 {
        inbox.reserve(READ);
    }
    match reader.read_buf(inbox).await? {
        0 => Err(End::Left),
        count => Ok(count),
    }
}
