use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{self, Outcome};

/// What the tests need besides Rust: a program, and the Debian package that has it.
const NEEDED: [(&str, &str); 21] = [
    // SQLite and libFuzzer are compiled from source.
    ("cc", "build-essential"),
    ("c++", "build-essential"),
    ("caddy", "caddy"),
    ("curl", "curl"),
    ("go", "golang-go"),
    ("mosquitto", "mosquitto"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("nats-server", "nats-server"),
    ("nginx", "nginx"),
    ("openssl", "openssl"),
    ("initdb", "postgresql"),
    ("promtool", "prometheus"),
    ("python3", "python3"),
    ("rabbitmq-server", "rabbitmq-server"),
    ("systemd-analyze", "systemd"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("chromium", "chromium"),
    ("firefox-esr", "firefox-esr"),
    // One gives a process a small disk of its own, to fill it up; the other lets
    // root start what refuses to be root.
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
];

/// Installs what is missing when that is possible, and otherwise says what to install.
pub(crate) fn provide() -> Outcome {
    provide_all(&NEEDED)
}

/// The same for these programs and the packages that have them.
pub(crate) fn provide_all(needed: &[(&str, &'static str)]) -> Outcome {
    let packages = missing(needed);
    if packages.is_empty() {
        return Outcome {
            succeeded: true,
            ..Outcome::default()
        };
    }
    let may_install = is_root() && find("apt-get").is_some();
    if may_install {
        let apt = |arguments: &[&str]| {
            run::run(
                Command::new("apt-get")
                    .args(arguments)
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )
        };
        // An old list may still do; the installation decides.
        apt(&["update", "-q"]);
        let install = [
            &["install", "-q", "-y", "--no-install-recommends"],
            packages.as_slice(),
        ];
        let _quiet = NoServices::for_now();
        apt(&install.concat());
    }
    let packages = missing(needed);
    if !packages.is_empty() {
        println!(
            "missing, please install: apt-get install {}",
            packages.join(" ")
        );
    }
    Outcome {
        succeeded: packages.is_empty(),
        ..Outcome::default()
    }
}

fn missing(needed: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needed
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

/// Services such as mosquitto lie where only root's `PATH` looks, and those of
/// PostgreSQL in a folder for each version.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.into_iter().flatten().flatten();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut folders = folders.chain(versions.map(|version| version.path().join("bin")));
    folders.find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
}

/// 101: "action forbidden by policy" (invoke-rc.d(8)).
const POLICY: &[u8] = b"#!/bin/sh
# Made by `cargo xtask test` while it installs packages; left only by one that was killed.
exit 101
";

/// Lets packages be installed without starting the services in them, as Debian's
/// policy-rc.d does it: the tests start their own, and brokers and databases that
/// nobody asked for would go on running here.
struct NoServices(Option<&'static Path>);

impl NoServices {
    fn for_now() -> Self {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        let mut options = std::fs::File::options();
        // One that is there is the owner's own.
        let made = options
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(policy)
            .and_then(|mut file| file.write_all(POLICY));
        Self(made.is_ok().then_some(policy))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.map(std::fs::remove_file) {
            println!("please remove /usr/sbin/policy-rc.d: {error}");
        }
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
