use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::run::{self, cargo};

/// Builds what is measured as it is shipped, and measures it: `bench compare` with these
/// arguments (`--help` lists them). `--render` only writes the report again, `--instructions`
/// counts those of the hot functions, `--scaling` measures many nodes.
pub(crate) fn bench(root: &Path, arguments: &[String]) -> ExitCode {
    match arguments.split_first() {
        Some((first, rest)) if first == "--instructions" => {
            let mut count = cargo();
            count.args(["bench", "--quiet", "--package", "bench"]);
            count.args(["--bench", "instructions", "--"]).args(rest);
            finish(count.current_dir(root))
        }
        Some((first, rest)) if first == "--render" => {
            build(root, &["bench"]).unwrap_or_else(|| {
                let mut render = program(root);
                finish(render.arg("render").args(rest))
            })
        }
        Some((first, rest)) if first == "--scaling" => {
            build(root, &["bench", "chat-service", "broadcast-sse"]).unwrap_or_else(|| {
                let mut scaling = program(root);
                finish(scaling.arg("scaling").args(rest))
            })
        }
        _ => build(root, &["bench", "broker", "chat-service", "broadcast-sse"]).unwrap_or_else(
            || {
                let mut compare = program(root);
                finish(compare.arg("compare").args(arguments))
            },
        ),
    }
}

/// How it failed, if it did.
fn build(root: &Path, packages: &[&str]) -> Option<ExitCode> {
    let mut build = cargo();
    build.args(["build", "--release", "--bins"]);
    for package in packages {
        build.args(["--package", package]);
    }
    let built = run::run(build.current_dir(root));
    (!built.succeeded).then_some(ExitCode::FAILURE)
}

fn program(root: &Path) -> Command {
    let mut command = Command::new(target(root).join("release/bench"));
    command.current_dir(root);
    command
}

/// Where cargo builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root.join(folder)
}

fn finish(command: &mut Command) -> ExitCode {
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot start {}: {error}", command.get_program().display());
            ExitCode::FAILURE
        }
    }
}
