use std::path::PathBuf;
use std::process::Command;

use crate::run::{self, Outcome};

/// What the tests need besides Rust: a program, and the Debian package that has it.
const NEEDED: [(&str, &str); 13] = [
    // SQLite and libFuzzer are compiled from source.
    ("cc", "build-essential"),
    ("c++", "build-essential"),
    ("curl", "curl"),
    ("mosquitto", "mosquitto"),
    ("nginx", "nginx"),
    ("openssl", "openssl"),
    ("python3", "python3"),
    ("systemd-analyze", "systemd"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("chromium", "chromium"),
    ("firefox-esr", "firefox-esr"),
    // Gives a process a small disk of its own, to fill it up.
    ("unshare", "util-linux"),
];

/// Installs what is missing when that is possible, and otherwise says what to install.
pub(crate) fn provide() -> Outcome {
    let packages = missing();
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
        apt(&install.concat());
    }
    let packages = missing();
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

fn missing() -> Vec<&'static str> {
    let mut packages: Vec<_> = NEEDED
        .into_iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| package)
        .collect();
    packages.dedup();
    packages
}

/// Services such as mosquitto lie where only root's `PATH` looks.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
