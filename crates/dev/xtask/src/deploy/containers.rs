//! `hark` in a container, and the whole by compose.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use super::chat::Chat;
use super::{Place, ensure, eventually};
use crate::dist::{Step, create_folder, output, shell};

/// Where compose.yaml publishes the page in the test.
const PORT: &str = "18800";

pub(super) fn hark_alone(place: &Place) -> Step {
    let hark = Compose::of(place, "compose.hark.yaml");
    shell(&mut hark.run(&["up", "--detach", "--build"]))?;
    place.engine.is_healthy(&hark.container("hark")?)?;
    let chat = Chat {
        page: "http://127.0.0.1:8000/".to_owned(),
        posts: "http://127.0.0.1:8080/".to_owned(),
        streams: "http://127.0.0.1:8081/".to_owned(),
        password: None,
    };
    let first = chat.carries("in a container")?;
    chat.refuses_the_name("rebound.example")?;
    // Another container, the same volume.
    shell(&mut hark.run(&["down"]))?;
    shell(&mut hark.run(&["up", "--detach"]))?;
    let second = chat.carries("in the next container")?;
    ensure(second > first, || {
        format!("{second} after {first}: the volume was lost")
    })?;
    has_no_shell(place, &hark.container("hark")?)?;
    shell(&mut hark.run(&["down", "--volumes"]))
}

/// Whoever starts it learns why there is no `hark`, from Docker or from what `is_healthy` fails with.
pub(super) fn taken_port(place: &Place) -> Step {
    let hark = Compose::of(place, "compose.hark.yaml");
    let taken = TcpListener::bind("127.0.0.1:8000").map_err(|error| error.to_string())?;
    let refused = hark.run(&["up", "--detach", "--build"]).output();
    let refused = refused.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure(
        !refused.status.success() && said.contains("127.0.0.1:8000") && said.contains("in use"),
        || format!("{refused:?}"),
    )?;
    shell(&mut hark.run(&["down", "--volumes"]))?;
    drop(taken);

    // On the machine's own network it is `hark` that cannot have its port.
    let taken = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let taken = taken
        .local_addr()
        .map(|address| (taken, address.to_string()));
    let (_listener, address) = taken.map_err(|error| error.to_string())?;
    let mut run = place.engine.docker();
    run.args([
        "run",
        "--detach",
        "--restart=unless-stopped",
        "--network=host",
        "hark",
    ]);
    let others = ["--sse", "--demo", "--mqtt", "--ops"];
    run.args(["up", "--data=/data", "--chat", &address]);
    let container = output(run.args(others.iter().flat_map(|other| [other, "127.0.0.1:0"])))?;
    let Err(why) = place.engine.is_healthy(&container) else {
        return Err("healthy without its port".to_owned());
    };
    ensure(why.contains("`--chat 127.0.0.1:PORT`"), || why)
}

fn has_no_shell(place: &Place, container: &str) -> Step {
    match place.engine.inside(container, "true") {
        Ok(_) => Err(format!("{container} has a shell")),
        Err(_none) => Ok(()),
    }
}

/// A folder of root's as the volume: `hark` does not run as root, and says what to do.
pub(super) fn unwritable_volume(place: &Place) -> Step {
    let mut build = place.engine.docker();
    build.args(["build", "--quiet", "--target", "hark", "--tag", "hark"]);
    build.args(["--file", "deploy/docker/Dockerfile", "."]);
    shell(build.current_dir(&place.unpacked))?;
    let folder = place.folder.join("of-root");
    create_folder(&folder)?;
    let mut run = place.engine.docker();
    run.args([
        "run",
        "--volume",
        &format!("{}:/data", folder.display()),
        "hark",
    ]);
    let refused = run.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure(
        refused.status.code() == Some(1) && said.contains("chown 10001:10001 "),
        || format!("{refused:?}"),
    )
}

pub(super) fn the_whole(place: &Place) -> Step {
    let whole = Compose::of(place, "compose.yaml");
    shell(&mut whole.run(&["up", "--detach", "--build"]))?;
    for service in ["chat-service", "broadcast-sse"] {
        place.engine.is_healthy(&whole.container(service)?)?;
        has_no_shell(place, &whole.container(service)?)?;
    }
    let said = output(&mut whole.run(&["logs", "setup"]))?;
    let password = said.split_whitespace().last().unwrap_or_default();
    let page = format!("http://localhost:{PORT}/");
    ensure(said.contains(&page), || format!("setup says {said}"))?;
    let chat = Chat::behind(&page, Some(password));
    let first = chat.carries("through compose")?;
    chat.is_locked()?;

    // The services under new addresses; the messages and the password are those from before.
    shell(&mut whole.run(&["rm", "--force", "--stop", "chat-service", "broadcast-sse"]))?;
    shell(&mut whole.run(&["up", "--detach"]))?;
    let second = chat.carries("after both were replaced")?;
    ensure(second > first, || {
        format!("{second} after {first}: the store was lost")
    })?;

    // Open when that is said.
    shell(&mut whole.run(&["down"]))?;
    shell(whole.run(&["up", "--detach"]).env("HARK_OPEN", "true"))?;
    Chat::behind(&page, None).carries("without a password")?;
    shell(&mut whole.run(&["down", "--volumes"]))
}

/// docker-compose with one of our files.
struct Compose<'place> {
    place: &'place Place,
    folder: PathBuf,
    file: &'static str,
}

impl<'place> Compose<'place> {
    fn of(place: &'place Place, file: &'static str) -> Self {
        Self {
            place,
            folder: place.unpacked.join("deploy/docker"),
            file,
        }
    }

    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.engine.command("docker-compose");
        command
            .args(["--file", self.file])
            .current_dir(&self.folder);
        command.args(arguments).env("HARK_PORT", PORT);
        command
    }

    /// The container of a service.
    fn container(&self, service: &str) -> Step<String> {
        eventually(|| {
            let id = output(&mut self.run(&["ps", "--quiet", service]))?;
            ensure(!id.is_empty(), || format!("{service} has no container"))?;
            Ok(id)
        })
    }
}
