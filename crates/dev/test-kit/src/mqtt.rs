use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Publishes one payload to a topic with QoS 1, as any stranger could, and
/// waits for the broker's PUBACK. Speaks MQTT 3.1.1 by hand: tests send what no
/// well-behaved client library would.
///
/// # Panics
/// When the broker does not take it.
pub async fn mqtt_publish(broker: SocketAddr, topic: &str, payload: &[u8]) {
    let answer = publish(broker, topic, payload).await;
    let answer = answer.expect("the broker takes it");
    assert_eq!(answer, (0x40, vec![0, 1]), "PUBACK");
}

/// The same, and gives the broker's answer, which should be a PUBACK of packet 1.
pub(crate) async fn publish(
    broker: SocketAddr,
    topic: &str,
    payload: &[u8],
) -> std::io::Result<(u8, Vec<u8>)> {
    let (mut stream, answer) = connect(broker).await?;
    assert_eq!(answer, (0x20, vec![0, 0]), "CONNACK");
    // §3.3: QoS 1, packet id 1.
    let mut publish = Vec::new();
    push_text(&mut publish, topic);
    publish.extend([0, 1]);
    publish.extend(payload);
    send(&mut stream, 0x32, &publish).await?;
    let answer = receive(&mut stream).await?;
    // §3.14: without DISCONNECT some brokers log an error.
    send(&mut stream, 0xe0, &[]).await?;
    Ok(answer)
}

/// Connects without a name and gives the broker's answer, which should be a CONNACK.
pub(crate) async fn connect(broker: SocketAddr) -> std::io::Result<(TcpStream, (u8, Vec<u8>))> {
    let mut stream = TcpStream::connect(broker).await?;
    // §3.1: protocol name and level 4, clean session, no keep-alive, a client id for this call alone.
    let client_id = format!("test-{}", stream.local_addr()?.port());
    let mut connect = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0b10, 0, 0];
    push_text(&mut connect, &client_id);
    send(&mut stream, 0x10, &connect).await?;
    let answer = receive(&mut stream).await?;
    Ok((stream, answer))
}

fn push_text(packet: &mut Vec<u8>, text: &str) {
    packet.extend(
        u16::try_from(text.len())
            .expect("a short text")
            .to_be_bytes(),
    );
    packet.extend(text.as_bytes());
}

async fn send(stream: &mut TcpStream, first_byte: u8, body: &[u8]) -> std::io::Result<()> {
    let mut packet = vec![first_byte];
    // §2.2.3: seven bits a byte, the lowest first.
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).expect("seven bits");
        length >>= 7;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    stream.write_all(&packet).await
}

async fn receive(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let first_byte = stream.read_u8().await?;
    // Only short packets are awaited here.
    let length = stream.read_u8().await?;
    let mut body = vec![0; usize::from(length)];
    stream.read_exact(&mut body).await?;
    Ok((first_byte, body))
}
