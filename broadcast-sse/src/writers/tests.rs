//! Tests of writers over real sockets; a script says what they write.

use std::collections::VecDeque;

use http_server::http::Place;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;

/// Long enough that only a failure reaches it.
const LONG: Duration = Duration::from_secs(20);

const LAST: &str = "over\n";

/// The script of a stream: lines that a test adds, or an endless series of numbered lines. After the line
/// [`LAST`] the stream is over. What its client sends is sent back, and a flood of it ends the stream.
struct Script {
    lines: Arc<Mutex<VecDeque<Bytes>>>,
    endless: Option<(u64, Arc<Slot<Script>>)>,
    waker: Arc<Slot<Script>>,
    received: usize,
    /// Closed when the script is dropped.
    _open: mpsc::Sender<()>,
}

impl Source for Script {
    fn next(&mut self, parts: &mut Vec<Bytes>) -> Flow {
        let mut lines = self.lines.lock();
        parts.extend(lines.drain(..));
        if let Some((number, waker)) = &mut self.endless {
            for _ in 0..100 {
                parts.push(format!("{number}\n").into());
                *number += 1;
            }
            waker.notify();
        }
        match parts.last() {
            Some(part) if part == LAST => Flow::Over,
            _ => Flow::On,
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Flow {
        self.received += bytes.len();
        if self.received > 32 * 1024 {
            return Flow::Over;
        }
        if !bytes.is_empty() {
            let mut lines = self.lines.lock();
            lines.push_back(Bytes::copy_from_slice(bytes));
            drop(lines);
            self.waker.notify();
        }
        Flow::On
    }

    fn ping(&self) -> Bytes {
        "ping\n".into()
    }

    fn last_words(&self) -> Bytes {
        "bye\n".into()
    }
}

struct Fixture {
    writers: Writers<Script>,
    cut: Counter,
    pings: watch::Sender<u64>,
    life: Lifecycle,
}

/// One stream and its client.
struct Stream {
    client: TcpStream,
    waker: Arc<Slot<Script>>,
    lines: Arc<Mutex<VecDeque<Bytes>>>,
    open: mpsc::Receiver<()>,
}

fn start(stall: Duration) -> Fixture {
    let life = Lifecycle::new();
    let pings = watch::Sender::new(0);
    let cut = Counter::default();
    let writers = Writers::start(2, stall, &cut, &pings.subscribe(), &life);
    Fixture {
        writers,
        cut,
        pings,
        life,
    }
}

/// A client, and the server's end of its connection, whose buffers are small.
async fn connect() -> (TcpStream, Taken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let (client, (socket, peer)) = (client.unwrap(), accepted.unwrap());
    SockRef::from(&socket).set_send_buffer_size(4_096).unwrap();
    SockRef::from(&client).set_recv_buffer_size(32_768).unwrap();
    let taken = Taken {
        socket,
        peer,
        unread: Bytes::new(),
        place: Place::alone(),
    };
    (client, taken)
}

impl Fixture {
    async fn open(&self, endless: bool) -> Stream {
        let (client, taken) = connect().await;
        let waker = self.writers.reserve();
        let lines = Arc::<Mutex<VecDeque<Bytes>>>::default();
        let (sender, open) = mpsc::channel(1);
        let script = Script {
            lines: lines.clone(),
            endless: endless.then(|| (0, waker.clone())),
            waker: waker.clone(),
            received: 0,
            _open: sender,
        };
        waker.clone().adopt(taken, script);
        Stream {
            client,
            waker,
            lines,
            open,
        }
    }

    async fn stop(self) {
        self.life.shutdown();
        assert_eq!(self.life.wait(LONG).await, Ok(()));
    }
}

impl Stream {
    fn say(&self, line: &'static str) {
        self.lines.lock().push_back(line.into());
        self.waker.notify();
    }

    async fn hears(&mut self, expected: &str) {
        let mut heard = vec![0; expected.len()];
        let read = timeout(LONG, self.client.read_exact(&mut heard)).await;
        read.expect("something comes").expect("the stream is open");
        assert_eq!(String::from_utf8_lossy(&heard), expected);
    }

    /// Reads everything until the end.
    async fn hears_to_the_end(&mut self) -> String {
        let mut heard = String::new();
        let read = timeout(LONG, self.client.read_to_string(&mut heard)).await;
        read.expect("the stream ends").expect("it ends well");
        heard
    }

    /// Waits until the writers have dropped the stream.
    async fn is_gone(&mut self) {
        let closed = timeout(LONG, self.open.recv()).await;
        assert_eq!(closed.expect("the stream is let go"), None);
    }

    /// Waits until something has arrived, without taking it.
    async fn has_begun(&self) {
        let mut first = [0];
        let peeked = timeout(LONG, self.client.peek(&mut first)).await;
        assert_eq!(peeked.expect("something comes").unwrap(), 1);
    }
}

/// Checks that the numbers of an endless script have no gaps.
fn assert_counts(heard: &str) {
    for (expected, line) in heard.lines().enumerate() {
        assert_eq!(line, expected.to_string());
    }
}

#[tokio::test]
async fn a_stream_says_what_is_next_when_rung_and_its_last_words_at_the_end() {
    let fixture = start(LONG);
    let mut stream = fixture.open(false).await;
    stream.say("one\n");
    stream.hears("one\n").await;
    stream.say("two\n");
    stream.hears("two\n").await;
    fixture.pings.send_modify(|count| *count += 1);
    stream.hears("ping\n").await;
    fixture.life.shutdown();
    assert_eq!(stream.hears_to_the_end().await, "bye\n");
    stream.is_gone().await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_bell_rung_before_the_socket_came_counts() {
    let fixture = start(LONG);
    let waker = fixture.writers.reserve();
    waker.notify();
    let (client, taken) = connect().await;
    let (sender, open) = mpsc::channel(1);
    let lines: VecDeque<Bytes> = [Bytes::from("early\n")].into();
    let lines = Arc::new(Mutex::new(lines));
    let script = Script {
        lines: lines.clone(),
        endless: None,
        waker: waker.clone(),
        received: 0,
        _open: sender,
    };
    waker.clone().adopt(taken, script);
    let mut stream = Stream {
        client,
        waker,
        lines,
        open,
    };
    stream.hears("early\n").await;
    fixture.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_waits_and_comes_whole_before_the_last_words() {
    let fixture = start(LONG);
    let mut stream = fixture.open(true).await;
    // Far more than fits into the buffers: many writes are cut in the middle.
    let mut heard = vec![0; 1 << 20];
    let read = timeout(LONG, stream.client.read_exact(&mut heard)).await;
    read.expect("it goes on").unwrap();
    fixture.life.shutdown();
    let mut heard = String::from_utf8(heard).unwrap();
    heard.push_str(&stream.hears_to_the_end().await);
    assert_counts(heard.strip_suffix("bye\n").expect("last words"));
    stream.is_gone().await;
    fixture.stop().await;
}

#[tokio::test]
async fn who_takes_nothing_is_dropped_and_keeps_nobody_waiting() {
    let fixture = start(Duration::from_millis(200));
    let mut deaf = fixture.open(true).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(fixture.open(false).await);
    }
    deaf.has_begun().await;
    for other in &mut others {
        other.say("hello\n");
        other.hears("hello\n").await;
    }
    deaf.is_gone().await;
    assert_eq!(fixture.cut.get(), 1);
    fixture.stop().await;
}

#[tokio::test]
async fn who_goes_is_let_go_whatever_waits_for_it() {
    let fixture = start(LONG);
    let mut blocked = fixture.open(true).await;
    blocked.has_begun().await;
    let mut idle = fixture.open(false).await;
    let mut half_closed = fixture.open(false).await;
    half_closed.client.shutdown().await.unwrap();
    half_closed.is_gone().await;
    for stream in [&mut blocked, &mut idle] {
        // Only the server's end of the connection is left.
        let (spare, _taken) = connect().await;
        drop(std::mem::replace(&mut stream.client, spare));
        stream.is_gone().await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_source_is_given_what_its_client_sends_and_may_end_the_stream_for_it() {
    let fixture = start(LONG);
    let mut stream = fixture.open(false).await;
    stream.client.write_all(b"hello\n").await.unwrap();
    stream.hears("hello\n").await;
    // The connection may be reset while the client writes.
    while stream.client.write_all(&[b'x'; 4_096]).await.is_ok() {}
    stream.is_gone().await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_source_that_is_over_ends_its_stream_once_everything_is_written() {
    let fixture = start(LONG);
    let mut stream = fixture.open(false).await;
    stream.say("one\n");
    stream.say(LAST);
    assert_eq!(stream.hears_to_the_end().await, "one\nover\n");
    stream.is_gone().await;
    // The same, with more before it than the kernel accepts at once.
    let mut stream = fixture.open(false).await;
    let long = "x".repeat(1 << 20);
    let lines = [Bytes::from(long), Bytes::from(LAST)];
    stream.lines.lock().extend(lines);
    stream.waker.notify();
    let heard = stream.hears_to_the_end().await;
    assert!(heard.ends_with(LAST) && heard.len() == (1 << 20) + LAST.len());
    stream.is_gone().await;
    fixture.stop().await;
}

#[tokio::test]
async fn everybody_in_a_crowd_is_served() {
    let fixture = start(LONG);
    let mut crowd = Vec::new();
    for _ in 0..600 {
        crowd.push(fixture.open(false).await);
    }
    for stream in &crowd {
        stream.say("all\n");
    }
    fixture.pings.send_modify(|count| *count += 1);
    for stream in &mut crowd {
        let mut heard = [0; 9];
        let read = timeout(LONG, stream.client.read_exact(&mut heard)).await;
        read.expect("both come").unwrap();
        assert!([*b"all\nping\n", *b"ping\nall\n"].contains(&heard));
    }
    // Tokens are reused, and no client gets what is meant for another.
    drop(crowd);
    for _ in 0..10 {
        let mut stream = fixture.open(false).await;
        stream.say("new\n");
        stream.hears("new\n").await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn who_comes_after_the_end_is_sent_away() {
    let fixture = start(LONG);
    fixture.life.shutdown();
    let mut stream = fixture.open(false).await;
    let heard = stream.hears_to_the_end().await;
    assert!(["", "bye\n"].contains(&&*heard), "{heard}");
    stream.is_gone().await;
    fixture.stop().await;
}
