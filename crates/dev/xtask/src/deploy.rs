//! `cargo xtask test-deploy`: what docs/install.md says, done from nothing on a Docker engine of its
//! own, without an image registry: images begin with a Debian that debootstrap has made.
//!
//! It takes minutes, wants root and the usual ports, and leaves Docker's firewall rules behind.

mod chat;
mod containers;
mod engine;
mod servers;
mod strangers;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::dist::{self, Dist, Step};
use crate::run::Outcome;
use crate::tools;
use engine::Engine;

/// Programs beside those that the tests need, and their Debian packages.
const NEEDED: [(&str, &str); 6] = [
    ("dockerd", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("debootstrap", "debootstrap"),
    ("ansible-playbook", "ansible"),
    ("ansible-lint", "ansible-lint"),
    ("curl", "curl"),
];

/// What the tests have in common.
struct Place {
    /// All that a run leaves behind, until the next one.
    folder: PathBuf,
    /// A tarball, unpacked: what somebody has who installs Hark.
    unpacked: PathBuf,
    /// The packages that belong to it.
    packages: PathBuf,
    /// Their version, and the architecture as Debian calls it.
    version: String,
    architecture: &'static str,
    /// The same packages under a later version.
    later: PathBuf,
    engine: Engine,
}

type Test = (&'static str, fn(&Place) -> Step);

const TESTS: [Test; 8] = [
    ("hark-in-a-container", containers::hark_alone),
    ("taken-port", containers::taken_port),
    ("unwritable-volume", containers::unwritable_volume),
    ("compose", containers::the_whole),
    ("package-by-hand", servers::package_by_hand),
    ("playbook-style", servers::playbooks_are_clean),
    ("one-server", servers::one_server),
    ("several-servers", servers::several_servers),
];

/// Runs all of them, or those named.
pub(crate) fn test(root: &Path, names: &[String]) -> ExitCode {
    let known = |name: &String| TESTS.iter().any(|test| test.0 == name);
    if !names.iter().all(known) {
        let all: Vec<_> = TESTS.iter().map(|test| test.0).collect();
        eprintln!("usage: cargo xtask test-deploy [{}]...", all.join("|"));
        return ExitCode::from(64);
    }
    let place = match Place::prepare(root) {
        Ok(place) => place,
        Err(why) => {
            eprintln!("test-deploy: {why}");
            return ExitCode::FAILURE;
        }
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, run) in TESTS {
        if !names.is_empty() && !names.iter().any(|chosen| chosen == name) {
            continue;
        }
        println!("=== {name}");
        let start = Instant::now();
        let result = run(&place);
        let seconds = start.elapsed().as_secs();
        match result {
            Ok(()) => {
                passed += 1;
                println!("=== {name} ok, {seconds} s\n");
            }
            Err(why) => {
                failed += 1;
                println!("=== {name} FAILED, {seconds} s: {why}\n");
            }
        }
        place.engine.remove_containers();
    }
    drop(place);
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Place {
    fn prepare(root: &Path) -> Step<Self> {
        let Outcome { succeeded, .. } = tools::provide_all(&NEEDED);
        if !succeeded {
            return Err("tools are missing".to_owned());
        }
        let own = dist::own_architecture().ok_or("no programs are made for this machine")?;
        let mut dist = Dist::new(root)?;
        dist.run(&[own])?;
        let folder = dist.out.with_file_name("test-deploy");
        dist::empty_folder(&folder)?;
        let name = format!("hark-{}-{}", dist.version, own.name);
        let mut unpack = Command::new("tar");
        unpack
            .arg("-xf")
            .arg(dist.out.join(format!("{name}.tar.gz")));
        dist::shell(unpack.arg("-C").arg(&folder))?;
        let (packages, version) = (dist.out.clone(), dist.version.clone());
        let later = dist.pack_as_later(own)?;
        Ok(Self {
            engine: Engine::start(&folder.join("engine"))?,
            unpacked: folder.join(name),
            folder,
            packages,
            version,
            architecture: own.debian,
            later,
        })
    }
}

/// Tries until it works or a minute and a half are over: what a machine does after it was told to.
fn eventually<T>(attempt: impl Fn() -> Step<T>) -> Step<T> {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(300)),
            result => return result,
        }
    }
}

fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Step {
    if condition { Ok(()) } else { Err(otherwise()) }
}
