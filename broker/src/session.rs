//! One client's connection: between its socket and its link with the router.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttd::Notification;
use rumqttd::protocol::{LastWill, Packet, Publish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::clients::{Client, Ended};
use crate::guard::{Admitted, Guard, GuardState, admit_connect};
use crate::link::{Link, RouterGone};
use crate::login::OwnLogin;
use crate::router::RouterDoor;
use crate::wire::{self, Refusal};

/// How long a client may take to say CONNECT.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long a client may take nothing of what it is sent.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// Bytes that are read at once, and written at once, where packets are not larger themselves.
const READ: usize = 10 * 1024;
const WRITE: usize = 64 * 1024;

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

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
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

/// Serves a connection to its end. Errors concern this client alone.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    client: Client,
    ended: oneshot::Receiver<Ended>,
    door: RouterDoor,
    shared: Arc<Shared>,
) {
    let mut connection = Connection {
        stream,
        inbox: BytesMut::with_capacity(READ),
        outbox: BytesMut::new(),
        ended,
        max_packet: shared.max_packet,
    };
    let end = match run(&mut connection, client, door, &shared).await {
        Ok(()) => return,
        Err(end) => end,
    };
    match end {
        End::Refused(reason) => {
            shared.guard.refuse(reason, peer);
        }
        end => debug!(%peer, reason = %end, "a connection ended"),
    }
}

/// Until the client says DISCONNECT.
async fn run(
    connection: &mut Connection,
    mut client: Client,
    door: RouterDoor,
    shared: &Shared,
) -> Result<(), End> {
    let hello = timeout(CONNECT_TIME, connection.hello()).await;
    let hello = hello.map_err(|_elapsed| End::Silent)??;
    let own = shared.own_login.is(hello.login.as_ref());
    client.connect(&hello.id, own).map_err(End::Refused)?;
    // Dropped before `client`: the router has heard of the end when the place is free again.
    let link = door.open().await?;
    connection.outbox.extend_from_slice(&WELCOME);
    connection.flush().await?;
    let mut session = Session {
        link,
        client: &mut client,
        guard: Guard::new(Arc::clone(&shared.guard), own),
        to_router: Vec::new(),
    };
    let end = session.run(connection, hello.silence).await;
    if let (Err(_), Some(will)) = (&end, hello.will) {
        // MQTT-3.1.2-8. A router that is gone takes no will.
        let will = Publish::new(will.topic, will.message, false);
        let _ = session.link.send(&mut vec![Packet::Publish(will, None)]);
    }
    end
}

struct Hello {
    id: String,
    login: Option<rumqttd::protocol::Login>,
    will: Option<LastWill>,
    /// How long the client may be silent.
    silence: Duration,
}

struct Connection {
    stream: TcpStream,
    inbox: BytesMut,
    outbox: BytesMut,
    ended: oneshot::Receiver<Ended>,
    max_packet: usize,
}

impl Connection {
    async fn hello(&mut self) -> Result<Hello, End> {
        let packet = loop {
            if let Some(read) =
                wire::read(&mut self.inbox, self.max_packet).map_err(End::Refused)?
            {
                break read.packet;
            }
            tokio::select! {
                told = &mut self.ended => return Err(told_to_end(told)),
                read = read_some(&mut self.stream, &mut self.inbox) => read?,
            }
        };
        let Packet::Connect(connect, _, mut will, _, login) = packet else {
            return Err(End::Refused("not CONNECT first"));
        };
        admit_connect(&connect, will.as_mut()).map_err(End::Refused)?;
        if connect.client_id.is_empty() && !connect.clean_session {
            self.outbox.extend_from_slice(&ID_REFUSED);
            self.flush().await?;
            return Err(End::Refused("no client id for a session that lasts"));
        }
        // One and a half times the keep-alive (MQTT-3.1.2-24); 0 turns that off, and means a day.
        let silence = match connect.keep_alive {
            0 => Duration::from_secs(24 * 60 * 60),
            seconds => Duration::from_millis(u64::from(seconds) * 1500),
        };
        Ok(Hello {
            id: connect.client_id,
            login,
            will,
            silence,
        })
    }

    /// Writes what waits in `outbox`.
    async fn flush(&mut self) -> Result<(), End> {
        tokio::select! {
            told = &mut self.ended => return Err(told_to_end(told)),
            written = timeout(WRITE_STALL, self.stream.write_all(&self.outbox)) => {
                written.map_err(|_elapsed| End::Stalled)??;
            }
        }
        self.outbox.clear();
        if self.outbox.capacity() > 2 * WRITE {
            self.outbox = BytesMut::new();
        }
        Ok(())
    }
}

struct Session<'a> {
    link: Link,
    client: &'a mut Client,
    guard: Guard,
    to_router: Vec<Packet>,
}

impl Session<'_> {
    async fn run(&mut self, connection: &mut Connection, silence: Duration) -> Result<(), End> {
        let mut from_router = Vec::new();
        let alarm = sleep_until(Instant::now() + silence);
        tokio::pin!(alarm);
        let mut heard = Instant::now();
        loop {
            // What came with CONNECT is looked at first.
            if let Farewell::Said = self.take(connection).await? {
                return Ok(());
            }
            tokio::select! {
                told = &mut connection.ended => return Err(told_to_end(told)),
                read = read_some(&mut connection.stream, &mut connection.inbox) => {
                    read?;
                    heard = Instant::now();
                }
                received = self.link.receive(&mut from_router) => {
                    received?;
                    self.deliver(connection, &mut from_router).await?;
                }
                () = &mut alarm => {
                    let until = heard + silence;
                    if until <= Instant::now() {
                        return Err(End::Silent);
                    }
                    alarm.as_mut().reset(until);
                }
            }
        }
    }

    /// Hands the packets that were read to the router.
    async fn take(&mut self, connection: &mut Connection) -> Result<Farewell, End> {
        let mut farewell = Farewell::NotYet;
        while let Some(read) =
            wire::read(&mut connection.inbox, connection.max_packet).map_err(End::Refused)?
        {
            if matches!(read.packet, Packet::Publish(..) | Packet::Subscribe(..)) {
                self.client.works();
            }
            let (pass, answer) = match self.guard.admit(read).map_err(End::Refused)? {
                Admitted::Pass(packet) => (Some(packet), None),
                Admitted::Answer(packet) => (None, Some(packet)),
                Admitted::PassAndAnswer(publish, answer) => (
                    Some(Packet::Publish(publish, None)),
                    Some(Packet::PubRec(answer, None)),
                ),
                Admitted::Farewell => {
                    farewell = Farewell::Said;
                    break;
                }
            };
            self.to_router.extend(pass);
            if let Some(answer) = answer {
                wire::write(answer, &mut connection.outbox).map_err(End::Refused)?;
            }
        }
        self.link.send(&mut self.to_router)?;
        if !connection.outbox.is_empty() {
            connection.flush().await?;
        }
        Ok(farewell)
    }

    /// Writes what the router has for the client.
    async fn deliver(
        &mut self,
        connection: &mut Connection,
        from_router: &mut Vec<Notification>,
    ) -> Result<(), End> {
        let mut unscheduled = false;
        for notification in from_router.drain(..) {
            if let Notification::Unschedule = notification {
                unscheduled = true;
            } else if let Some(packet) = notification.into() {
                let delivered = wire::write(packet, &mut connection.outbox);
                if let Some(packet_id) = delivered.map_err(End::Refused)? {
                    self.guard.deliver(packet_id);
                }
                if connection.outbox.len() >= WRITE {
                    connection.flush().await?;
                }
            }
        }
        connection.flush().await?;
        if unscheduled {
            self.link.wake().await?;
        }
        Ok(())
    }
}

enum Farewell {
    Said,
    NotYet,
}

async fn read_some(stream: &mut TcpStream, inbox: &mut BytesMut) -> Result<(), End> {
    if inbox.capacity() - inbox.len() < READ / 4 {
        inbox.reserve(READ);
    }
    match stream.read_buf(inbox).await? {
        0 => Err(End::Left),
        _ => Ok(()),
    }
}

fn told_to_end(told: Result<Ended, oneshot::error::RecvError>) -> End {
    told.map_or(End::Left, End::Told)
}
