use std::io;

use event_stream::Block;

use super::{Peer, Place, Running};
use crate::dialect::{Dialect, Ready, Start, get, post};
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

    fn version_arguments(&self) -> &'static [&'static str] {
        &["version"]
    }

    fn setup(&self) -> &'static str {
        "memory engine, uni_sse, anonymous, log level error; no history but where streams resume (1,000 messages, 300 s, recovery forced)"
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        let address = free_port()?;
        let port = address.port();
        let history = if place.history {
            r#",
    "history_size": 1000,
    "history_ttl": "300s",
    "force_recovery": true"#
        } else {
            ""
        };
        let configuration = format!(
            r#"{{
  "log": {{"level": "error"}},
  "http_server": {{"address": "127.0.0.1", "port": "{port}"}},
  "http_api": {{"key": "bench"}},
  "uni_sse": {{"enabled": true}},
  "client": {{"allow_anonymous_connect_without_token": true}},
  "channel": {{"without_namespace": {{
    "allow_subscribe_for_client": true,
    "allow_subscribe_for_anonymous": true{history}
  }}}}
}}
"#
        );
        let configuration = place.write("centrifugo.json", &configuration)?;
        let server = place
            .launch("centrifugo")?
            .arg("--config")
            .arg(configuration)
            .until_it_answers(place.folder, address)?;
        Ok(Running::single(server, address, Api))
    }
}

struct Api;

impl Dialect for Api {
    fn listen(&self, channel: &str, start: Start<'_>) -> Option<String> {
        let position = match start {
            Start::Live => String::new(),
            Start::Newest(_) => return None,
            Start::After(cursor) => cursor.to_owned(),
        };
        // {"subs":{"ID":{…}}}
        let connect = format!("%7B%22subs%22%3A%7B%22{channel}%22%3A%7B{position}%7D%7D%7D");
        Some(get(
            &format!("/connection/uni_sse?cf_connect={connect}"),
            "",
        ))
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

    /// Of the first event, which tells where its subscription began: `"recover":true` and so on,
    /// as they go into the next request.
    fn cursor(&self, event: &Block<'_>) -> Option<String> {
        let text = std::str::from_utf8(event.data.as_deref()?).ok()?;
        let (_, subscription) = text.split_once(r#""recoverable":true"#)?;
        let (_, epoch) = subscription.split_once(r#""epoch":""#)?;
        let (epoch, _) = epoch.split_once('"')?;
        let offset = subscription.split_once(r#""offset":"#);
        let offset = offset.map_or("0", |(_, offset)| {
            let end = offset.find(|digit: char| !digit.is_ascii_digit());
            &offset[..end.unwrap_or(offset.len())]
        });
        Some(format!(
            "%22recover%22%3Atrue%2C%22epoch%22%3A%22{epoch}%22%2C%22offset%22%3A{offset}"
        ))
    }
}
