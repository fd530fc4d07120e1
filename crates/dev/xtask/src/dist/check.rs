//! What was built is run once: each program for its version, and `hark` until a message went
//! through it. Programs of another architecture run under emulation.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Architecture, Dist, PROGRAMS, Step, at, output, own_architecture, shell};

const CHANNEL: &str = "3509fdb5-9ffe-4738-9d4b-0d457c251a72";

pub(super) fn runs(dist: &Dist, architecture: Architecture) -> Step {
    for name in PROGRAMS {
        let said = output(command(dist, architecture, name).arg("--version"))?;
        println!("{} {said}", architecture.name);
    }
    let data = dist.out.join("checked");
    let mut hark = Stopped(start(dist, architecture, &data)?);
    let mut lines = BufReader::new(hark.0.stdout.take().ok_or("no standard output")?).lines();
    let mut chat = None;
    loop {
        let line = lines.next().ok_or("hark ended before it was ready")?;
        let line = line.map_err(|error| error.to_string())?;
        match line.split_once(' ') {
            Some(("chat", url)) => chat = Some(url.to_owned()),
            None if line == "ready" => break,
            _ => {}
        }
    }
    let chat = chat.ok_or("hark did not say where it takes messages")?;
    let mut post = command(dist, architecture, "hark");
    let event = output(post.args(["post", CHANNEL, "hello", "--chat", &chat]))?;
    if !event.contains(r#""seq":1"#) {
        return Err(format!("not the first message of a channel: {event}"));
    }
    shell(Command::new("kill").arg(hark.0.id().to_string()))?;
    let status = hark.0.wait().map_err(|error| error.to_string())?;
    std::fs::remove_dir_all(&data).map_err(|error| at(&data, &error))?;
    if status.success() {
        println!("{} hark took a message", architecture.name);
        Ok(())
    } else {
        Err(format!("hark ended with {status}"))
    }
}

fn start(dist: &Dist, architecture: Architecture, data: &Path) -> Step<Child> {
    let mut hark = command(dist, architecture, "hark");
    hark.arg("up").arg("--data").arg(data);
    for listener in ["chat", "sse", "demo", "mqtt", "ops"] {
        hark.args([&format!("--{listener}"), "127.0.0.1:0"]);
    }
    let started = hark.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    started.map_err(|error| format!("cannot start hark: {error}"))
}

fn command(dist: &Dist, architecture: Architecture, name: &str) -> Command {
    let program = dist.program(architecture, name);
    if own_architecture() == Some(architecture) {
        return Command::new(program);
    }
    let mut emulated = Command::new(format!("qemu-{}-static", architecture.name));
    emulated.arg(program);
    emulated
}

/// Ends with the check, also with one that fails.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}
