use std::io;

use super::{Peer, Place, Running};
use crate::dialect::{Dialect, Ready, Start, get, post};
use crate::load::Target;

/// Hark with everything switched on, each service a process of its own.
pub(super) struct Hark;

const ANY_PORT: &str = "127.0.0.1:0";

impl Peer for Hark {
    fn name(&self) -> &'static str {
        "hark"
    }

    fn setup(&self) -> &'static str {
        "release binaries of broker, chat-service and broadcast-sse, default settings but for the log level; every post is committed with fsync before it is answered"
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        let launch = |name: &str| {
            place
                .launch_own(name)
                .env("HARK_LISTEN", ANY_PORT)
                .env("HARK_OPERATIONS__LISTEN", ANY_PORT)
        };
        let broker = launch("broker").until_ready(place.folder)?;
        let mqtt = broker.url("mqtt")?.to_owned();
        let chat = launch("chat-service")
            .env("HARK_LOG__LEVEL", "warn")
            .env("HARK_HTTP__MAX_CONNECTIONS", "20000")
            .env("HARK_STORE__DIR", place.folder.join("store"))
            .env("HARK_MQTT__URL", &mqtt)
            .until_ready(place.folder)?;
        let sse = launch("broadcast-sse")
            .env("HARK_LOG__LEVEL", "warn")
            .env("HARK_HISTORY__URL", chat.url("chat")?)
            .env("HARK_MQTT__URL", &mqtt)
            .until_ready(place.folder)?;
        let target = Target {
            listen: sse.address("sse")?,
            publish: chat.address("chat")?,
            dialect: Box::new(Rest),
        };
        Ok(Running {
            servers: vec![broker, chat, sse],
            target,
        })
    }
}

pub(super) struct Rest;

impl Dialect for Rest {
    fn listen(&self, channel: &str, start: Start) -> Option<String> {
        Some(get(&match start {
            Start::Live => format!("/events?c={channel}"),
            Start::Newest(count) => format!("/events?c={channel}&last={count}"),
        }))
    }

    fn publish(&self, channel: &str, payload: &[u8]) -> Vec<u8> {
        let target = format!("/channels/{channel}/messages");
        post(&target, "Content-Type: text/plain\r\n", payload)
    }

    fn ready(&self) -> Ready {
        Ready::Event("ready")
    }
}
