use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rumqttd::Notification;
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use tokio::time::sleep;

/// Between two looks whether a full queue of the router has room again.
const A_MOMENT: Duration = Duration::from_millis(1);

/// The router does not live any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker's router is gone")]
pub(crate) struct RouterGone;

/// Whether the router's queue takes an event at once, from each thread that asks.
pub(crate) type HasRoom = dyn Fn() -> bool + Send + Sync;

/// Ends a link whose number is given; it does not block.
pub(crate) type Farewell = dyn Fn(LinkTx, u64) + Send + Sync;

/// One client as the router sees it.
///
/// The router addresses a link by the number of a slot, which it gives away again when the link
/// ends. A word that comes after the end panics it or strikes the slot's next owner. So a link is
/// ended in one place only, its drop, by one DISCONNECT after which nothing is sent; and the router
/// is never given a reason to end a link by itself (see `Guard`).
///
/// None of this blocks its thread, whatever the router does.
pub(crate) struct Link {
    /// `None` only while dropping.
    tx: Option<LinkTx>,
    rx: LinkRx,
    /// By which the router knows it.
    number: u64,
    has_room: Arc<HasRoom>,
    farewell: Arc<Farewell>,
}

impl Link {
    pub(crate) fn new(
        tx: LinkTx,
        rx: LinkRx,
        number: u64,
        has_room: Arc<HasRoom>,
        farewell: Arc<Farewell>,
    ) -> Self {
        Self {
            tx: Some(tx),
            rx,
            number,
            has_room,
            farewell,
        }
    }

    /// Hands packets to the router, in one go. Waits while the router has a thousand such calls
    /// before it.
    ///
    /// # Errors
    /// [`RouterGone`].
    pub(crate) async fn send(&mut self, packets: &mut Vec<Packet>) -> Result<(), RouterGone> {
        if packets.is_empty() {
            return Ok(());
        }
        // rumqttd would wait for room on this thread.
        while !(self.has_room)() {
            sleep(A_MOMENT).await;
        }
        let (Some(tx), Some(last)) = (&mut self.tx, packets.pop()) else {
            return Ok(());
        };
        tx.buffer().extend(packets.drain(..));
        send_now(tx, last)
    }

    /// Waits until the router has begun with what it was handed.
    pub(crate) async fn taken(&self) {
        while let Some(tx) = &self.tx
            && !tx.buffer().is_empty()
        {
            sleep(A_MOMENT).await;
        }
    }

    /// Waits for what the router has for the client, and adds all that is there. Loses nothing when
    /// it is dropped before it is done.
    ///
    /// # Errors
    /// [`RouterGone`].
    pub(crate) async fn receive(
        &mut self,
        into: &mut VecDeque<Notification>,
    ) -> Result<(), RouterGone> {
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

/// It is an async function that never waits otherwise than on its thread.
fn send_now(tx: &mut LinkTx, packet: Packet) -> Result<(), RouterGone> {
    match tx.send(packet).now_or_never() {
        Some(Ok(_queued)) => Ok(()),
        _ => Err(RouterGone),
    }
}

/// Ends a link. It waits, on its thread, while the router's queue is full.
pub(crate) fn say_farewell(mut tx: LinkTx) {
    let farewell = Disconnect {
        reason_code: DisconnectReasonCode::NormalDisconnection,
    };
    // A router that is gone needs no farewell.
    let _ = send_now(&mut tx, Packet::Disconnect(farewell, None));
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(tx) = self.tx.take() {
            (self.farewell)(tx, self.number);
        }
    }
}

/// Tells the router that there is something for it.
#[cfg(test)]
pub(crate) fn ring(tx: &mut LinkTx) {
    let ping = Packet::PingReq(rumqttd::protocol::PingReq);
    send_now(tx, ping).unwrap();
}

#[cfg(test)]
impl Link {
    /// Lets the router hang when it next looks at this link, whose number this gives: it waits for a
    /// lock that nobody opens.
    pub(crate) fn hang(self) -> rumqttd::ConnectionId {
        let link = Box::leak(Box::new(self));
        let tx = link.tx.as_ref().unwrap();
        std::mem::forget(tx.buffer());
        link.rx.id()
    }
}
