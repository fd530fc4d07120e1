use std::io;

use super::{Peer, Place, Running};
use crate::dialect::{Dialect, Ready, Start, get, post};
use crate::load::Target;
use crate::server::free_port;

/// Centrifugo 6 in memory, with its unidirectional SSE.
pub(super) struct Centrifugo;

impl Peer for Centrifugo {
    fn name(&self) -> &'static str {
        "centrifugo"
    }

    fn program(&self) -> Option<&'static str> {
        Some("centrifugo")
    }

    fn version_argument(&self) -> &'static str {
        "version"
    }

    fn setup(&self) -> &'static str {
        "memory engine, no history, uni_sse, anonymous, log level error"
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        let address = free_port()?;
        let port = address.port();
        let configuration = format!(
            r#"{{
  "log": {{"level": "error"}},
  "http_server": {{"address": "127.0.0.1", "port": "{port}"}},
  "http_api": {{"key": "bench"}},
  "uni_sse": {{"enabled": true}},
  "client": {{"allow_anonymous_connect_without_token": true}},
  "channel": {{"without_namespace": {{
    "allow_subscribe_for_client": true,
    "allow_subscribe_for_anonymous": true
  }}}}
}}
"#
        );
        let configuration = place.write("centrifugo.json", &configuration)?;
        let server = place
            .launch("centrifugo")?
            .arg("--config")
            .arg(configuration)
            .env("GOMAXPROCS", "1")
            .until_connected(place.folder, address)?;
        Ok(Running {
            servers: vec![server],
            target: Target {
                listen: address,
                publish: address,
                dialect: Box::new(Api),
            },
        })
    }
}

struct Api;

impl Dialect for Api {
    fn listen(&self, channel: &str, start: Start) -> Option<String> {
        // {"subs":{"ID":{}}}
        let connect = format!("%7B%22subs%22%3A%7B%22{channel}%22%3A%7B%7D%7D%7D");
        (start == Start::Live).then(|| get(&format!("/connection/uni_sse?cf_connect={connect}")))
    }

    fn publish(&self, channel: &str, payload: &[u8]) -> Vec<u8> {
        let mut body = format!(r#"{{"channel":"{channel}","data":{{"text":""#).into_bytes();
        body.extend_from_slice(payload);
        body.extend_from_slice(br#""}}"#);
        let headers = "Content-Type: application/json\r\nX-API-Key: bench\r\n";
        post("/api/publish", headers, &body)
    }

    fn ready(&self) -> Ready {
        Ready::AnyEvent
    }
}
