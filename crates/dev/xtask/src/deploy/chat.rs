//! Somebody who talks through an installation from outside, with curl.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{ensure, eventually};
use crate::dist::{Step, output, read};

const CHANNEL: &str = "3509fdb5-9ffe-4738-9d4b-0d457c251a72";

/// The URLs of page, posts and streams, and the log-in in front of them.
pub(super) struct Chat {
    pub(super) page: String,
    pub(super) posts: String,
    pub(super) streams: String,
    pub(super) password: Option<String>,
}

impl Chat {
    /// All behind one address.
    pub(super) fn behind(page: &str, password: Option<&str>) -> Self {
        Self {
            page: page.to_owned(),
            posts: page.to_owned(),
            streams: page.to_owned(),
            password: password.map(str::to_owned),
        }
    }

    /// A message gets from a POST to a stream that was open before; its number.
    pub(super) fn carries(&self, text: &str) -> Step<u64> {
        eventually(|| {
            self.status(&self.page, "200")?;
            let mut stream = Stream::open(self)?;
            stream.until("event: ready")?;
            let stored = self.post(text)?;
            let line = stream.until("data: {\"channel\"")?;
            ensure(line == format!("data: {stored}"), || {
                format!("posted {stored}, and the stream has {line}")
            })?;
            number(&stored)
        })
    }

    /// Whoever has made a name of his own point here (DNS rebinding) gets nothing.
    pub(super) fn refuses_the_name(&self, name: &str) -> Step {
        for url in [&self.page, &self.posts, &self.streams] {
            let mut curl = self.curl();
            curl.args([
                "--header",
                &format!("Host: {name}"),
                "--output",
                "/dev/null",
            ]);
            let status = output(curl.args(["--write-out", "%{http_code}", url]))?;
            ensure(status == "403", || {
                format!("{url} answers {name} with {status}")
            })?;
        }
        Ok(())
    }

    /// Posts a text; the stored event.
    pub(super) fn post(&self, text: &str) -> Step<String> {
        output(
            self.curl()
                .args(["--fail", "--data", text, &self.messages("")]),
        )
    }

    /// Posts again and again until it is told to stop, each message until it is taken: the ids of
    /// what was taken.
    pub(super) fn posts_until(&self, stop: &AtomicBool) -> Step<Vec<String>> {
        let mut taken = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let id = read(Path::new("/proc/sys/kernel/random/uuid"))?;
            let id = id.trim();
            let body = format!(r#"{{"id":"{id}","text":"while it is upgraded"}}"#);
            eventually(|| {
                let mut curl = self.curl();
                curl.args(["--fail", "--header", "Content-Type: application/json"]);
                output(curl.args(["--data", &body, &self.messages("")]))
            })?;
            taken.push(id.to_owned());
        }
        Ok(taken)
    }

    /// Everything that is stored is numbered without holes, and has each of these ids once.
    pub(super) fn has_all(&self, ids: &[String]) -> Step {
        let mut history = String::new();
        let mut last = 0;
        loop {
            let page = self.messages(&format!("?after={last}&limit=1000"));
            let page = output(self.curl().args(["--fail", &page]))?;
            let events: Vec<_> = page.matches("\"seq\":").collect();
            if events.is_empty() {
                break;
            }
            for seq in last + 1..=last + events.len() as u64 {
                ensure(page.contains(&format!("\"seq\":{seq},")), || {
                    format!("{seq} is missing in {page}")
                })?;
            }
            last += events.len() as u64;
            history += &page;
        }
        for id in ids {
            let times = history.matches(&format!("\"id\":\"{id}\"")).count();
            ensure(times == 1, || format!("{id} is there {times} times"))?;
        }
        println!("{} taken meanwhile, {last} stored", ids.len());
        Ok(())
    }

    fn messages(&self, query: &str) -> String {
        format!("{}channels/{CHANNEL}/messages{query}", self.posts)
    }

    /// The page answers with this status.
    pub(super) fn status(&self, url: &str, expected: &str) -> Step {
        let mut curl = self.curl();
        let status =
            output(curl.args(["--output", "/dev/null", "--write-out", "%{http_code}", url]))?;
        ensure(status == expected, || {
            format!("{url} answered {status}, not {expected}")
        })
    }

    /// Nobody gets in without the password, neither to the page nor to posts and streams.
    pub(super) fn is_locked(&self) -> Step {
        let stranger = Self::behind(&self.page, None);
        for path in ["", "events?c=3509fdb5-9ffe-4738-9d4b-0d457c251a72"] {
            stranger.status(&format!("{}{path}", self.page), "401")?;
        }
        match stranger.post("from a stranger") {
            Ok(event) => Err(format!("a stranger posted {event}")),
            Err(_refused) => Ok(()),
        }
    }

    fn curl(&self) -> Command {
        let mut curl = Command::new("curl");
        curl.args([
            // Certificates of the tests are signed by themselves.
            "--insecure",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "20",
        ]);
        if let Some(password) = &self.password {
            curl.args(["--user", &format!("hark:{password}")]);
        }
        curl
    }
}

/// The `seq` of an event.
fn number(event: &str) -> Step<u64> {
    let digits = event.split("\"seq\":").nth(1).unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit());
    let digits = &digits[..end.unwrap_or(digits.len())];
    digits
        .parse()
        .map_err(|_none| format!("no number in {event}"))
}

/// An open stream of the channel; curl ends it after 20 s.
struct Stream {
    curl: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Stream {
    fn open(chat: &Chat) -> Step<Self> {
        let mut curl = chat.curl();
        curl.args([
            "--no-buffer",
            &format!("{}events?c={CHANNEL}", chat.streams),
        ]);
        let spawned = curl.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut curl = spawned.map_err(|error| format!("cannot start curl: {error}"))?;
        let output = curl.stdout.take().ok_or("curl has no output")?;
        Ok(Self {
            curl,
            lines: BufReader::new(output).lines(),
        })
    }

    fn until(&mut self, beginning: &str) -> Step<String> {
        loop {
            match self.lines.next() {
                Some(Ok(line)) if line.starts_with(beginning) => return Ok(line),
                Some(Ok(_)) => {}
                _ => return Err(format!("the stream ended without {beginning:?}")),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.curl.kill();
        let _status = self.curl.wait();
    }
}
