use std::io;

use super::{Peer, Place, Running};
use crate::dialect::{Dialect, Ready, Start, get, post};
use crate::server::free_port;

/// ntfy 2, in memory or with its SQLite cache.
pub(super) struct Ntfy {
    pub(super) durable: bool,
}

const UNLIMITED: &str = "1000000000";

impl Peer for Ntfy {
    fn name(&self) -> &'static str {
        if self.durable { "ntfy-sqlite" } else { "ntfy" }
    }

    fn program(&self) -> Option<&'static str> {
        Some("ntfy")
    }

    // It has no option for the version: the help ends with it.
    fn version_arguments(&self) -> &'static [&'static str] {
        &["--help"]
    }

    fn is_version(&self, line: &str) -> bool {
        line.starts_with("ntfy ") && line.contains(", runtime ")
    }

    fn setup(&self) -> &'static str {
        if self.durable {
            "cache file with journal_mode=WAL and synchronous=FULL, limits out of the way, log level error"
        } else {
            "cache in memory, limits out of the way, log level error"
        }
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        let address = free_port()?;
        let mut launch = place
            .launch("ntfy")?
            .args(["serve", "--config", "/dev/null", "--log-level", "error"])
            .arg("--base-url")
            .arg(format!("http://{address}"))
            .arg("--listen-http")
            .arg(address.to_string())
            .args(["--visitor-request-limit-exempt-hosts", "127.0.0.1"]);
        for limit in [
            "--visitor-subscription-limit",
            "--visitor-request-limit-burst",
            "--visitor-message-daily-limit",
            "--global-topic-limit",
        ] {
            launch = launch.args([limit, UNLIMITED]);
        }
        if self.durable {
            launch = launch
                .arg("--cache-file")
                .arg(place.folder.join("cache.db"))
                .arg("--cache-startup-queries")
                .arg("pragma journal_mode=WAL; pragma synchronous=FULL;");
        }
        let server = launch.until_it_answers(place.folder, address)?;
        Ok(Running::single(server, address, Topics))
    }
}

struct Topics;

impl Dialect for Topics {
    fn listen(&self, channel: &str, start: Start<'_>) -> Option<String> {
        (start == Start::Live).then(|| get(&format!("/{channel}/sse"), ""))
    }

    fn publish(&self, channel: &str, payload: &[u8]) -> Vec<u8> {
        post(&format!("/{channel}"), "", payload)
    }

    fn ready(&self) -> Ready {
        Ready::Event("open")
    }
}
