//! `cargo xtask`: the project's chores, with nothing but the standard library,
//! so that the first command of a fresh checkout compiles in a second.
//!
//! `cargo xtask test` runs everything that must pass before a change lands:
//! the steps are listed in [`steps`].

mod bench;
mod clients;
mod cluster;
mod deny;
mod deploy;
mod dist;
mod facts;
mod fuzz;
mod run;
mod tally;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use run::Outcome;

const USAGE: &str = "\
usage: cargo xtask test [--only STEP]...
       cargo xtask bench [--quick] [OPTION]...
       cargo xtask bench --render FILE...
       cargo xtask bench --instructions [--bless]
       cargo xtask bench --scaling [OPTION]...
       cargo xtask cluster [--release] [--chat N] [--sse N] [--broker N]
       cargo xtask dist [x86_64] [aarch64]
       cargo xtask test-deploy [TEST]...
       cargo xtask facts

Runs all checks and tests, or only the steps named:
  tools     install what is missing (as root on Debian), or name it
  format    cargo fmt --check
  clippy    cargo clippy, warnings are errors
  deny      licences, sources and versions of all crates, with cargo-deny
  build     all binaries and tests
  clients   SSE clients that others wrote, installed for the tests
  test      unit, contract, integration, system and documentation tests
  browser   the page in Chromium and Firefox
  fuzz      each fuzz target for a few seconds

`bench` puts the same load on Hark and on other servers; --help tells its options. A full run writes
docs/benchmarks.md, and --render writes it again from the readings that a run has saved. --instructions
counts the instructions of the hot functions and names those that grew; --bless keeps the counts.
--scaling measures what a post, an event, a stream and a channel cost many nodes (docs/scaling.md).

`cluster` starts several nodes of everything on this machine, to play with, until Ctrl-C.

`dist` makes what is installed on servers: static programs for both architectures, or those named, in
tarballs and Debian packages with checksums, in target/dist. `test-deploy` (as root, some minutes) does
what docs/install.md says with them, on a Docker engine of its own.

`facts` counts what the shape of the code is (files, circles, lines), beside what it may be.";

/// Where everything lies.
struct Workspace {
    root: PathBuf,
    /// The folder of the binaries under test: `target/debug`.
    binaries: PathBuf,
}

/// A step: its name, the step without which it makes no sense, and what it does.
type Step = (
    &'static str,
    Option<&'static str>,
    fn(&Workspace) -> Outcome,
);

fn steps() -> [Step; 9] {
    [
        ("tools", None, |_| tools::provide()),
        ("format", None, |workspace| {
            workspace.cargo(&["fmt", "--all", "--check"])
        }),
        ("clippy", None, |workspace| {
            workspace.cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ])
        }),
        ("deny", None, |workspace| deny::check(&workspace.root)),
        // With `--tests`, so that features are unified as `cargo test` does it and
        // nothing is compiled a second time.
        ("build", None, |workspace| {
            let all = [
                "build",
                "--workspace",
                "--bins",
                "--tests",
                "--exclude",
                "hark-fuzz",
            ];
            workspace.cargo(&all)
        }),
        ("clients", None, |workspace| {
            clients::install(&workspace.root)
        }),
        ("test", Some("build"), |workspace| {
            workspace.cargo(&["test", "--workspace", "--no-fail-fast"])
        }),
        ("browser", Some("build"), browser),
        ("fuzz", None, |workspace| fuzz::run(&workspace.root)),
    ]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == "bench" => {
            return bench::bench(&Workspace::find().root, rest);
        }
        Some((first, rest)) if first == "dist" => return dist::dist(&Workspace::find().root, rest),
        Some((first, rest)) if first == "test-deploy" => {
            return deploy::test(&Workspace::find().root, rest);
        }
        Some((first, [])) if first == "facts" => return facts::facts(&Workspace::find().root),
        Some((first, rest)) if first == "cluster" => {
            return cluster::cluster(&Workspace::find().root, rest);
        }
        _ => {}
    }
    let Some(chosen) = chosen_steps(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    test(&Workspace::find(), &chosen)
}

/// The names after `--only`; empty means all. `None` is bad usage.
fn chosen_steps(arguments: &[String]) -> Option<Vec<&str>> {
    let (command, mut rest) = arguments.split_first()?;
    let mut chosen = Vec::new();
    while let Some((option, after)) = rest.split_first() {
        let (name, after) = after.split_first()?;
        if option != "--only" || !steps().iter().any(|step| step.0 == name) {
            return None;
        }
        chosen.push(name.as_str());
        rest = after;
    }
    (command == "test").then_some(chosen)
}

fn test(workspace: &Workspace, chosen: &[&str]) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    let mut failures: Vec<&str> = Vec::new();
    let mut summary = Vec::new();
    for (name, needs, run) in steps() {
        if !chosen.is_empty() && !chosen.contains(&name) {
            continue;
        }
        if let Some(needed) = needs.filter(|needed| failures.contains(needed)) {
            summary.push(format!("{name:8} not run, as {needed} failed"));
            continue;
        }
        println!("=== {name}");
        let start = Instant::now();
        let outcome = run(workspace);
        let line = report(name, start.elapsed(), &outcome);
        println!("=== {line}\n");
        summary.push(line);
        passed += outcome.tally.passed;
        failed += outcome.tally.failed;
        if !outcome.succeeded {
            failures.push(name);
            // A step that fails without a failed test (it did not compile, say) counts as one.
            failed += u64::from(outcome.tally.failed == 0);
        }
    }
    println!("{}\n", summary.join("\n"));
    if chosen.is_empty() {
        println!("Installing is tried by `cargo xtask test-deploy`, which takes longer.\n");
    }
    println!("{passed} passed, {failed} failed");
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn report(name: &str, duration: Duration, outcome: &Outcome) -> String {
    let result = if outcome.succeeded { "ok" } else { "FAILED" };
    let mut line = format!("{name:8} {result:6} {:6.1} s", duration.as_secs_f64());
    if outcome.tally.passed + outcome.tally.failed > 0 {
        line += &format!(
            "  {} passed, {} failed",
            outcome.tally.passed, outcome.tally.failed
        );
    }
    line
}

fn browser(workspace: &Workspace) -> Outcome {
    let folder = workspace.root.join("crates/dev/system-tests/browser");
    if !is_newer(
        &folder.join("node_modules/.package-lock.json"),
        &folder.join("package-lock.json"),
    ) {
        let mut install = Command::new("npm");
        let installed = run::run(
            install
                .args(["ci", "--no-audit", "--no-fund"])
                .current_dir(&folder),
        );
        if !installed.succeeded {
            return installed;
        }
    }
    let mut tests = Command::new("npm");
    tests.args(["test", "--silent"]).current_dir(&folder);
    run::run(tests.env("HARK_BIN", workspace.binaries.join("hark")))
}

/// Whether a file is there and was written after another.
fn is_newer(file: &Path, than: &Path) -> bool {
    // A file that is not there, or does not tell, is not newer: what depends on it is made anew.
    let changed = |path: &Path| {
        path.metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    matches!((changed(file), changed(than)), (Some(file), Some(than)) if file >= than)
}

impl Workspace {
    fn find() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
        let root = root.expect("xtask lies in crates/dev/xtask").to_owned();
        // cargo has put xtask beside the others, wherever the target folder is.
        let xtask = std::env::current_exe().expect("the system tells a running program its path");
        let binaries = xtask
            .parent()
            .expect("a binary lies in a folder")
            .to_owned();
        Self { root, binaries }
    }

    fn cargo(&self, arguments: &[&str]) -> Outcome {
        run::run(run::cargo().args(arguments).current_dir(&self.root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn steps_can_be_chosen_and_unknown_ones_are_refused() {
        assert_eq!(chosen_steps(&arguments("test")), Some(vec![]));
        assert_eq!(
            chosen_steps(&arguments("test --only fuzz --only build")),
            Some(vec!["fuzz", "build"])
        );
        for bad in [
            "",
            "bench",
            "test --only",
            "test --only everything",
            "test fuzz",
        ] {
            assert_eq!(chosen_steps(&arguments(bad)), None, "{bad}");
        }
    }
}
