use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::run::{self, Outcome};

/// Seconds for each target: enough for some hundred thousand inputs.
const SECONDS: u32 = 10;

/// The coverage counters that libFuzzer steers by. `cargo fuzz` sets the same;
/// without its sanitizers they need no nightly compiler, and safe Rust has
/// little for a sanitizer to find.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds the targets of `crates/dev/fuzz` and runs each for [`SECONDS`].
pub(crate) fn run(root: &Path) -> Outcome {
    let folder = root.join("crates/dev/fuzz");
    let Some(host) = host() else {
        println!("rustc does not say what it compiles for");
        return Outcome::default();
    };
    let target = folder.join("target");
    let mut build = run::cargo();
    // With `--target`, so that build scripts are compiled without the counters.
    build.args([
        "build",
        "--package",
        "hark-fuzz",
        "--bins",
        "--profile",
        "fuzz",
    ]);
    build.args(["--target", &host, "--target-dir"]).arg(&target);
    let built = run::run(build.current_dir(root).env("RUSTFLAGS", COVERAGE));
    if !built.succeeded {
        return built;
    }
    let targets = targets(&folder);
    let mut outcome = Outcome {
        succeeded: !targets.is_empty(),
        ..Outcome::default()
    };
    for name in targets {
        let corpus = folder.join("corpus").join(&name);
        let artifacts = folder.join("artifacts").join(&name);
        for folder in [&corpus, &artifacts] {
            if let Err(error) = std::fs::create_dir_all(folder) {
                println!("cannot make {}: {error}", folder.display());
                return Outcome::default();
            }
        }
        // libFuzzer is talkative: only a failure is worth reading.
        let log = artifacts.join("log");
        let stderr = match File::create(&log) {
            Ok(file) => file,
            Err(error) => {
                println!("cannot write {}: {error}", log.display());
                return Outcome::default();
            }
        };
        let mut fuzzer = Command::new(target.join(&host).join("fuzz").join(&name));
        fuzzer.args([&format!("-max_total_time={SECONDS}"), "-timeout=5"]);
        fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
        // What it finds goes to the first folder; the seeds are only read.
        fuzzer.arg(corpus).arg(folder.join("seeds").join(&name));
        let ran = run::run(fuzzer.stderr(stderr));
        let result = if ran.succeeded { "ok" } else { "FAILED" };
        println!("fuzz target {name} ... {result}");
        if !ran.succeeded {
            println!(
                "{}",
                std::fs::read_to_string(&log).unwrap_or_else(|error| error.to_string())
            );
        }
        outcome.succeeded &= ran.succeeded;
        outcome.tally.passed += u64::from(ran.succeeded);
        outcome.tally.failed += u64::from(!ran.succeeded);
    }
    outcome
}

/// Each target has a folder of seeds.
fn targets(folder: &Path) -> Vec<String> {
    let seeds = std::fs::read_dir(folder.join("seeds"))
        .into_iter()
        .flatten()
        // Without a folder there is no target, which fails the step.
        .flatten();
    let mut names: Vec<_> = seeds
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn host() -> Option<String> {
    let output = Command::new("rustc").arg("-vV").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
}
