use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{self, Outcome};

/// The version that `deny.toml` was written for. The first installation takes about a minute and a half.
const VERSION: &str = "0.20.2";

/// `cargo deny check` as far as it works without the network: versions, licences, sources. Advisories
/// are looked up in a repository that has to be fetched; `cargo deny check advisories` does it by hand.
pub(crate) fn check(root: &Path) -> Outcome {
    let tools = root.join("target/tools");
    let Some(program) = find(&tools) else {
        println!(
            "cargo-deny is missing and could not be installed: cargo install --locked cargo-deny"
        );
        return Outcome::default();
    };
    let mut check = Command::new(program);
    check.args(["--offline", "--workspace", "check"]);
    check.args(["bans", "licenses", "sources"]);
    run::run(check.current_dir(root))
}

/// The program: one that is installed, or else our own, which is installed when it is needed.
fn find(tools: &Path) -> Option<PathBuf> {
    let own = tools.join("bin/cargo-deny");
    if own.is_file() {
        return Some(own);
    }
    let installed = Command::new("cargo-deny").arg("--version").output();
    if installed.is_ok_and(|output| output.status.success()) {
        return Some("cargo-deny".into());
    }
    let mut install = run::cargo();
    // Without optimizing: it is built for longer than it ever runs.
    install.args(["install", "--locked", "--quiet", "--profile", "dev"]);
    install.args(["cargo-deny", "--version", VERSION, "--root"]);
    install.arg(tools);
    (run::run(&mut install).succeeded && own.is_file()).then_some(own)
}
