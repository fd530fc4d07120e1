use futures_util::FutureExt as _;
use rumqttd::Notification;
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};

use crate::router::InnerId;

/// The router does not live any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker's router is gone")]
pub(crate) struct RouterGone;

/// One client as the router sees it.
///
/// The router addresses a link by the number of a slot, which it gives away again when the link
/// ends. A word that comes after the end panics it or strikes the slot's next owner. So a link is
/// ended in one place only, its drop, by one DISCONNECT after which nothing is sent; and the router
/// is never given a reason to end a link by itself (see `Guard`).
pub(crate) struct Link {
    tx: LinkTx,
    rx: LinkRx,
    /// After `drop` has spoken, so that the name is free only when the router has heard it.
    _id: InnerId,
}

impl Link {
    pub(crate) fn new(tx: LinkTx, rx: LinkRx, id: InnerId) -> Self {
        Self { tx, rx, _id: id }
    }

    /// Hands packets to the router, in one go. It waits, on its thread, while the router has a
    /// thousand such calls before it.
    ///
    /// # Errors
    /// [`RouterGone`].
    pub(crate) fn send(&mut self, packets: &mut Vec<Packet>) -> Result<(), RouterGone> {
        let Some(last) = packets.pop() else {
            return Ok(());
        };
        self.tx.buffer().extend(packets.drain(..));
        // It is an async function that never waits otherwise than on its thread.
        match self.tx.send(last).now_or_never() {
            Some(Ok(_queued)) => Ok(()),
            _ => Err(RouterGone),
        }
    }

    /// Waits for what the router has for the client, and adds all that is there. Loses nothing when
    /// it is dropped before it is done.
    ///
    /// # Errors
    /// [`RouterGone`].
    pub(crate) async fn receive(&mut self, into: &mut Vec<Notification>) -> Result<(), RouterGone> {
        while into.is_empty() {
            into.extend(self.rx.next().await.map_err(|_gone| RouterGone)?);
        }
        while let Some(more) = self.rx.next().now_or_never() {
            into.extend(more.map_err(|_gone| RouterGone)?);
        }
        Ok(())
    }

    /// Tells the router, which has said `Unschedule`, that there is room again.
    ///
    /// # Errors
    /// [`RouterGone`].
    pub(crate) async fn wake(&self) -> Result<(), RouterGone> {
        self.rx.wake().await.map_err(|_gone| RouterGone)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let farewell = Disconnect {
            reason_code: DisconnectReasonCode::NormalDisconnection,
        };
        // A router that is gone needs no farewell.
        let _ = self.send(&mut vec![Packet::Disconnect(farewell, None)]);
    }
}
