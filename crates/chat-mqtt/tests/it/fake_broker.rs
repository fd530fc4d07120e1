use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use bytes::BytesMut;
use rumqttc::mqttbytes::Error;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The beginning of a payload that makes this broker end the connection.
pub(crate) const POISON: &[u8] = b"poison";

/// The beginning of a payload that gets no PUBACK.
pub(crate) const MUTE: &[u8] = b"mute";

/// A broker with faults that no real broker shows on demand: it ends the connection at one payload, does
/// not answer another, and accepts everything else.
pub(crate) struct FakeBroker {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl FakeBroker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, SeqCst);
                clients.spawn(serve(client));
            }
        });
        Self {
            address,
            connections,
            _task: task,
        }
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

async fn serve(mut client: TcpStream) {
    let mut input = BytesMut::new();
    loop {
        let answer = match Packet::read(&mut input, 1 << 20) {
            Ok(Packet::Connect(_)) => Packet::ConnAck(ConnAck {
                session_present: false,
                code: ConnectReturnCode::Success,
            }),
            Ok(Packet::Publish(publish)) if publish.payload.starts_with(POISON) => return,
            Ok(Packet::Publish(publish)) if publish.payload.starts_with(MUTE) => continue,
            Ok(Packet::Publish(publish)) => Packet::PubAck(PubAck::new(publish.pkid)),
            Ok(Packet::PingReq) => Packet::PingResp,
            Ok(_) => return,
            Err(Error::InsufficientBytes(_)) => match client.read_buf(&mut input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            },
            Err(error) => panic!("{error}"),
        };
        let mut output = BytesMut::new();
        answer.write(&mut output, usize::MAX).unwrap();
        if client.write_all(&output).await.is_err() {
            return;
        }
    }
}
