use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::bench::target;
use crate::run::{self, cargo};

/// Builds the services and starts many nodes of them (crates/dev/system-tests/examples/cluster.rs),
/// with these arguments but for `--release`.
pub(crate) fn cluster(root: &Path, arguments: &[String]) -> ExitCode {
    let (release, others): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|word| *word == "--release");
    let profile = if release.is_empty() {
        "debug"
    } else {
        "release"
    };
    let mut build = cargo();
    build.args(["build", "--bins", "--examples"]).args(release);
    for package in ["chat-service", "broadcast-sse", "system-tests"] {
        build.args(["--package", package]);
    }
    if !run::run(build.current_dir(root)).succeeded {
        return ExitCode::FAILURE;
    }
    let program = target(root).join(profile).join("examples/cluster");
    // It takes the place of this process, so that Ctrl-C waits for its end.
    let error = Command::new(&program).args(others).exec();
    eprintln!("cannot start {}: {error}", program.display());
    ExitCode::FAILURE
}
