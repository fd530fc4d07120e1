//! One client's connection: between its socket and its link with the router.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use rumqttd::protocol::{LastWill, Packet, Publish};
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use crate::clients::{Client, Ended};
use crate::connection::{Connection, End, READ, read_some};
use crate::conversation::Conversation;
use crate::guard::{Guard, GuardState, admit_connect};
use crate::login::OwnLogin;
use crate::outbox::{Outbox, Sink};
use crate::router_links::RouterLinks;
use crate::wire;

/// How long a client may take to say CONNECT.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// CONNACK (MQTT 3.1.1 §3.2): welcome; or the client id is refused, as it must be when there is none
/// and the session should outlive the connection (MQTT-3.1.3-8).
const WELCOME: [u8; 4] = [0x20, 2, 0, 0];
const ID_REFUSED: [u8; 4] = [0x20, 2, 0, 2];

/// What sessions share.
pub(crate) struct Shared {
    pub(crate) guard: Arc<GuardState>,
    pub(crate) own_login: OwnLogin,
    pub(crate) max_packet: usize,
}

/// Serves a connection to its end. Errors concern this client alone.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    client: Client,
    ended: oneshot::Receiver<Ended>,
    door: RouterLinks,
    shared: Arc<Shared>,
) {
    let (reader, sink) = stream.into_split();
    let connection = Connection {
        reader,
        sink,
        inbox: BytesMut::with_capacity(READ),
        outbox: Outbox::new(),
        max_packet: shared.max_packet,
    };
    match run(connection, client, ended, door, &shared).await {
        Ok(()) => {}
        Err(End::Refused(reason)) => shared.guard.refuse(reason, peer),
        Err(end) => debug!(%peer, reason = %end, "a connection ended"),
    }
}

/// Until the client says DISCONNECT.
async fn run<R: AsyncRead + Unpin, W: Sink>(
    mut connection: Connection<R, W>,
    mut client: Client,
    mut ended: oneshot::Receiver<Ended>,
    door: RouterLinks,
    shared: &Shared,
) -> Result<(), End> {
    let hello = timeout(CONNECT_TIME, connection.hello()).map(|hello| match hello {
        Ok(hello) => hello,
        Err(_elapsed) => Err(End::Silent),
    });
    let hello = unless_told(&mut ended, hello).await?;
    let own = shared.own_login.is(hello.login.as_ref());
    client.connect(&hello.id, own).map_err(End::Refused)?;
    let mut guard = Guard::new(&shared.guard, client.share(), own);
    if let Some(will) = &hello.will {
        guard.admit_topic(&will.topic).map_err(End::Refused)?;
    }
    // Dropped before `client`: the router is told of the end before the place is free again.
    let link = unless_told(&mut ended, door.open().map(|link| Ok(link?))).await?;
    connection.outbox.bytes().extend_from_slice(&WELCOME);
    let mut conversation = Conversation::new(connection, link, guard, &mut client);
    let end = unless_told(&mut ended, conversation.run(hello.silence)).await;
    if let (Err(_), Some(will)) = (&end, hello.will) {
        // MQTT-3.1.2-8. A router that is gone takes no will.
        let will = Publish::new(will.topic, will.message, false);
        let _ = conversation.say(Packet::Publish(will, None)).await;
    }
    end
}

/// Does `work`, unless the client is told to end before.
async fn unless_told<T>(
    ended: &mut oneshot::Receiver<Ended>,
    work: impl Future<Output = Result<T, End>>,
) -> Result<T, End> {
    tokio::select! {
        biased;
        told = ended => Err(told.map_or(End::Left, End::Told)),
        done = work => done,
    }
}

struct Hello {
    id: String,
    login: Option<rumqttd::protocol::Login>,
    will: Option<LastWill>,
    /// How long the client may be silent; `None` is for ever.
    silence: Option<Duration>,
}

impl<R: AsyncRead + Unpin, W: Sink> Connection<R, W> {
    async fn hello(&mut self) -> Result<Hello, End> {
        let packet = loop {
            if let Some(read) =
                wire::read(&mut self.inbox, self.max_packet).map_err(End::Refused)?
            {
                break read.packet;
            }
            read_some(&mut self.reader, &mut self.inbox).await?;
        };
        let Packet::Connect(connect, _, mut will, _, login) = packet else {
            return Err(End::Refused("not CONNECT first"));
        };
        admit_connect(&connect, will.as_mut()).map_err(End::Refused)?;
        if connect.client_id.is_empty() && !connect.clean_session {
            self.outbox.bytes().extend_from_slice(&ID_REFUSED);
            self.outbox.begin(&mut self.sink)?;
            return Err(End::Refused("no client id for a session that lasts"));
        }
        Ok(Hello {
            id: connect.client_id,
            login,
            will,
            silence: silence(connect.keep_alive),
        })
    }
}

/// One and a half times the keep-alive (MQTT-3.1.2-24), which 0 turns off (§3.1.2.10).
fn silence(keep_alive: u16) -> Option<Duration> {
    (keep_alive != 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_of_0_is_none() {
        assert_eq!(silence(0), None);
        assert_eq!(silence(60), Some(Duration::from_secs(90)));
    }
}
