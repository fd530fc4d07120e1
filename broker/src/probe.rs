use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connects as a client does and waits for CONNACK and PINGRESP: both come from the router, so an
/// answer means that sockets, connection tasks and router live.
///
/// `client_id` may be used again only after a success: a connection that ended before its CONNACK
/// was written leaves rumqttd in a state that the next one with that id would break.
pub(crate) async fn probe(
    address: SocketAddr,
    client_id: &str,
    within: Duration,
) -> io::Result<()> {
    timeout(within, talk(address, client_id))
        .await
        .map_err(|_elapsed| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {within:?}"),
            )
        })?
}

async fn talk(address: SocketAddr, client_id: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&connect_packet(client_id)).await?;
    expect(&mut stream, [0x20, 2, 0, 0], "CONNACK").await?;
    // PINGREQ and PINGRESP, then DISCONNECT (MQTT 3.1.1 §3.12 to §3.14).
    stream.write_all(&[0xc0, 0]).await?;
    expect(&mut stream, [0xd0, 0], "PINGRESP").await?;
    stream.write_all(&[0xe0, 0]).await?;
    stream.shutdown().await
}

/// CONNECT of MQTT 3.1.1 §3.1: level 4, clean session, keep-alive of 60 s, a short client id.
fn connect_packet(client_id: &str) -> Vec<u8> {
    let id = client_id.as_bytes();
    // 100 bytes at most, so that the remaining length is one byte.
    let length = u8::try_from(id.len().min(100)).unwrap_or(100);
    let mut packet = vec![
        0x10,
        12 + length,
        0,
        4,
        b'M',
        b'Q',
        b'T',
        b'T',
        4,
        0b10,
        0,
        60,
        0,
        length,
    ];
    packet.extend_from_slice(&id[..usize::from(length)]);
    packet
}

async fn expect<const N: usize>(
    stream: &mut TcpStream,
    want: [u8; N],
    name: &str,
) -> io::Result<()> {
    let mut got = [0; N];
    stream.read_exact(&mut got).await?;
    if got == want {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not a {name}: {got:02x?}"),
        ))
    }
}
