use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Peer, Place, Programs, Running};
use crate::dialect::{Dialect, Ready, Start, get, post};
use crate::load::Target;
use crate::server::{Launch, Server, free_port};

/// Hark with everything switched on, each service a process of its own.
pub(super) struct Hark {
    /// mosquitto and a subscription for each channel, instead of the embedded broker and one
    /// subscription for all.
    pub(super) mosquitto: bool,
}

const ANY_PORT: &str = "127.0.0.1:0";

impl Peer for Hark {
    fn name(&self) -> &'static str {
        if self.mosquitto {
            "hark-mosquitto"
        } else {
            "hark"
        }
    }

    fn program(&self) -> Option<&'static str> {
        self.mosquitto.then_some("mosquitto")
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["-h"]
    }

    fn setup(&self) -> &'static str {
        if self.mosquitto {
            "as hark, with Debian's mosquitto as broker and `subscribe.mode` per-channel"
        } else {
            "release binaries of broker, chat-service and broadcast-sse, default settings but for the log level; chat-service at the lowest priority, as docs/operations.md has it for services that share processors; every post is synced to the disk before it is answered"
        }
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        let (broker, mqtt) = if self.mosquitto {
            mosquitto(place)?
        } else {
            let broker = own(place.launch_own("broker")).until_ready(place.folder)?;
            let mqtt = broker.url("mqtt")?.to_owned();
            (broker, mqtt)
        };
        // What was accepted is delivered before more is accepted.
        let chat = place.programs.own.join("chat-service");
        let chat = own(Launch::last(&chat, &place.processors))
            .env("HARK_LOG__LEVEL", "warn")
            .env("HARK_HTTP__MAX_CONNECTIONS", "20000")
            .env("HARK_STORE__DIR", place.folder.join("store"))
            .env("HARK_MQTT__URL", &mqtt)
            .until_ready(place.folder)?;
        let node = Node {
            programs: place.programs.clone(),
            processors: place.streaming.clone(),
            folder: place.folder.to_owned(),
            history: chat.url("chat")?.to_owned(),
            mqtt,
            mode: if self.mosquitto {
                "per-channel"
            } else {
                "wildcard"
            },
        };
        let sse = node.start("first")?;
        let target = Target {
            listen: sse.address("sse")?,
            publish: chat.address("chat")?,
            dialect: Box::new(Rest),
        };
        Ok(Running {
            servers: vec![broker, chat, sse],
            target,
            node: Some(node),
        })
    }
}

/// How a broadcast-sse of a running Hark is started.
pub(crate) struct Node {
    programs: Programs,
    processors: Vec<usize>,
    folder: PathBuf,
    history: String,
    mqtt: String,
    mode: &'static str,
}

impl Node {
    /// Starts one, with nothing in its memory.
    pub(crate) fn start(&self, name: &str) -> io::Result<Server> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder)?;
        let program = self.programs.own.join("broadcast-sse");
        own(Launch::new(&program, &self.processors))
            .env("HARK_LOG__LEVEL", "warn")
            .env("HARK_HISTORY__URL", &self.history)
            .env("HARK_MQTT__URL", &self.mqtt)
            .env("HARK_SUBSCRIBE__MODE", self.mode)
            .until_ready(&folder)
    }
}

/// Where one of its nodes listens.
pub(crate) fn listens(node: &Server) -> io::Result<SocketAddr> {
    node.address("sse")
}

/// One of ours, on any ports.
fn own(launch: Launch) -> Launch {
    launch
        .env("HARK_LISTEN", ANY_PORT)
        .env("HARK_OPERATIONS__LISTEN", ANY_PORT)
}

fn mosquitto(place: &Place<'_>) -> io::Result<(Server, String)> {
    let address = free_port()?;
    // Its defaults of 20 and 1,000 make a busy subscriber lose messages. Started by root it
    // would change to a user who may not read the folder.
    let configuration = format!(
        "listener {} 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 1000000
log_type error
user root
",
        address.port()
    );
    let configuration = place.write("mosquitto.conf", &configuration)?;
    let broker = place
        .launch("mosquitto")?
        .arg("-c")
        .arg(configuration)
        .until_it_answers(place.folder, address)?;
    Ok((broker, format!("mqtt://{address}")))
}

pub(super) struct Rest;

impl Dialect for Rest {
    fn listen(&self, channel: &str, start: Start<'_>) -> Option<String> {
        let target = format!("/events?c={channel}");
        Some(match start {
            Start::Live => get(&target, ""),
            Start::Newest(count) => get(&format!("{target}&last={count}"), ""),
            Start::After(cursor) => get(&target, &format!("Last-Event-ID: {cursor}\r\n")),
        })
    }

    fn publish(&self, channel: &str, payload: &[u8]) -> Vec<u8> {
        let target = format!("/channels/{channel}/messages");
        post(&target, "Content-Type: text/plain\r\n", payload)
    }

    fn ready(&self) -> Ready {
        Ready::Event("ready")
    }
}
