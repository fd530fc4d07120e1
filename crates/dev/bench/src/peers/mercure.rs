use std::io;
use std::process::Command;

use super::{Peer, Place, Running};
use crate::dialect::{Dialect, Start, get, post};
use crate::server::free_port;

/// Mercure 1.0, in memory or with its Bolt store.
pub(super) struct Mercure {
    pub(super) durable: bool,
}

const KEY: &str = "a-key-of-at-least-thirty-two-bytes-for-HS256";
const HUB: &str = "/.well-known/mercure";

impl Peer for Mercure {
    fn name(&self) -> &'static str {
        if self.durable {
            "mercure-bolt"
        } else {
            "mercure"
        }
    }

    fn program(&self) -> Option<&'static str> {
        Some("mercure")
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["version"]
    }

    fn setup(&self) -> &'static str {
        if self.durable {
            "Mercure 1.0 with `transport bolt`, anonymous, no heartbeat, no write timeout"
        } else {
            "Mercure 1.0 with `transport local`, anonymous, no heartbeat, no write timeout"
        }
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        let address = free_port()?;
        let port = address.port();
        let transport = if self.durable {
            format!(
                "bolt {{\n path {}/mercure.db\n size 100000\n }}",
                place.folder.display()
            )
        } else {
            "local".to_owned()
        };
        let configuration = format!(
            "{{
  admin off
  auto_https off
  log {{
    level ERROR
  }}
}}
http://localhost:{port}, http://127.0.0.1:{port} {{
  route {{
    mercure {{
      anonymous
      heartbeat 0
      write_timeout 0
      resource_identifier https://localhost{HUB}
      issuer https://localhost {{
        publisher {{
          jwt {KEY} HS256
        }}
        subscriber {{
          jwt {KEY} HS256
        }}
      }}
      transport {transport}
    }}
    respond 404
  }}
}}
"
        );
        let configuration = place.write("Caddyfile", &configuration)?;
        let token = token(place)?;
        let server = place
            .launch("mercure")?
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(configuration)
            .until_it_answers(place.folder, address)?;
        Ok(Running::single(server, address, Hub { token }))
    }
}

/// Mercure signs tokens itself.
fn token(place: &Place<'_>) -> io::Result<String> {
    let program = place.programs.find("mercure");
    let program = program.ok_or_else(|| io::Error::other("mercure is not installed"))?;
    let output = Command::new(program)
        .args(["mercure-token", "--dev", "--publish-urlpattern", "*"])
        .env("MERCURE_PUBLISHER_JWT_KEY", KEY)
        .output()?;
    let token = String::from_utf8(output.stdout).map_err(io::Error::other)?;
    match token.trim() {
        "" => Err(io::Error::other("mercure signed no token")),
        token => Ok(token.to_owned()),
    }
}

struct Hub {
    token: String,
}

impl Dialect for Hub {
    fn listen(&self, channel: &str, start: Start<'_>) -> Option<String> {
        (start == Start::Live).then(|| get(&format!("{HUB}?match={channel}"), ""))
    }

    fn publish(&self, channel: &str, payload: &[u8]) -> Vec<u8> {
        let mut body = format!("topic={channel}&data=").into_bytes();
        body.extend_from_slice(payload);
        let token = &self.token;
        let headers = format!(
            "Content-Type: application/x-www-form-urlencoded\r\nAuthorization: Bearer {token}\r\n"
        );
        post(HUB, &headers, &body)
    }
}
