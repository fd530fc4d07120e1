use std::path::Path;
use std::process::{Command, ExitCode};

use crate::run::{self, cargo};

/// Builds what is measured as it is shipped, and measures it: `bench compare`
/// with these arguments (`--help` lists them).
pub(crate) fn bench(root: &Path, arguments: &[String]) -> ExitCode {
    let mut build = cargo();
    build.args(["build", "--release", "--bins"]);
    for package in ["bench", "broker", "chat-service", "broadcast-sse"] {
        build.args(["--package", package]);
    }
    if !run::run(build.current_dir(root)).succeeded {
        return ExitCode::FAILURE;
    }
    let folder = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let program = root.join(folder).join("release/bench");
    let mut compare = Command::new(&program);
    compare.arg("compare").args(arguments).current_dir(root);
    match compare.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot start {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
