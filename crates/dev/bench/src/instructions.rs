//! How many instructions a function takes, counted by callgrind.
//!
//! Unlike time they are the same on a noisy machine, so a regression shows. A program counts
//! itself: callgrind runs it twice, with a number of calls and with twice as many, and the
//! difference is that of the calls alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// One more than this part of what was kept is a regression; threads do not take turns in the
/// same way twice, so a function that has some gets more.
const TOLERANCE: f64 = 0.05;
const TOLERANCE_OF_THREADS: f64 = 0.1;

/// The argument with which a program runs one function under callgrind.
const CALL: &str = "--call";

/// A function that is measured.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// What it is called in tables.
    pub name: &'static str,
    /// Calls whose instructions are counted.
    pub calls: u32,
    /// Whether it involves other threads.
    pub threads: bool,
    /// Makes ready what a call needs, which is not counted, and returns the call.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

impl std::fmt::Display for Function {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// The main function of a program that counts the instructions of these functions.
///
/// `kept` is the file of the counts that they are compared with; with `--bless` it is written.
/// Fails when a function takes more instructions than are kept, or cannot be counted.
pub fn count_instructions(functions: &[Function], kept: &Path) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [call, name, calls] if call == CALL => repeat(functions, name, calls).map(|()| true),
        _ => run(
            functions,
            kept,
            arguments.iter().any(|word| word == "--bless"),
        ),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn repeat(functions: &[Function], name: &str, calls: &str) -> io::Result<()> {
    let function = functions.iter().find(|function| function.name == name);
    let function = function.ok_or_else(|| io::Error::other(format!("no function {name}")))?;
    let calls: u32 = calls.parse().map_err(io::Error::other)?;
    let mut call = (function.prepare)();
    for _ in 0..calls {
        call();
    }
    Ok(())
}

/// Whether nothing grew.
fn run(functions: &[Function], kept: &Path, bless: bool) -> io::Result<bool> {
    let folder = tempfile::tempdir()?;
    let mut counts = Counts::new();
    for function in functions {
        eprintln!("counting {}", function.name);
        let count = |calls| callgrind(function.name, calls, folder.path());
        let (once, twice) = (count(function.calls)?, count(2 * function.calls)?);
        let each = twice.saturating_sub(once) / u64::from(function.calls);
        counts.insert(function.name.to_owned(), each);
    }
    let before = if kept.exists() {
        serde_json::from_str(&fs::read_to_string(kept)?)?
    } else {
        Counts::new()
    };
    let changes = changes(functions, &before, &counts);
    println!("{}", table(&changes));
    if bless {
        let mut text = serde_json::to_string_pretty(&counts)?;
        text.push('\n');
        fs::write(kept, text)?;
        return Ok(true);
    }
    let named = |verdict| {
        let of_it = changes
            .iter()
            .filter(move |change| change.verdict == verdict);
        let names: Vec<&str> = of_it.map(|change| change.name.as_str()).collect();
        names.join(", ")
    };
    let (grown, others) = (named(Verdict::Grew), named(Verdict::Shrank));
    if !others.is_empty() {
        println!("fewer than are kept: {others}; --bless keeps what was counted now");
    }
    if !grown.is_empty() {
        println!("more than are kept: {grown}; --bless if that is meant");
    }
    Ok(grown.is_empty())
}

/// Runs this program under callgrind; returns all instructions that it took.
fn callgrind(name: &str, calls: u32, folder: &Path) -> io::Result<u64> {
    let file = folder.join("callgrind.out");
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--tool=callgrind"])
        .arg(option("--callgrind-out-file=", &file))
        .arg(std::env::current_exe()?)
        .args([CALL, name, &calls.to_string()])
        .stdin(Stdio::null());
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other("valgrind is not installed; Debian: apt-get install valgrind")
        }
        _ => error,
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{name} under valgrind: {said}")));
    }
    let text = fs::read_to_string(&file)?;
    total(&text).ok_or_else(|| io::Error::other("callgrind wrote no total"))
}

fn option(name: &str, file: &Path) -> PathBuf {
    let mut option = std::ffi::OsString::from(name);
    option.push(file);
    option.into()
}

/// The line `totals: NUMBER` of callgrind's file.
fn total(text: &str) -> Option<u64> {
    let mut lines = text.lines().rev();
    let total = lines.find_map(|line| line.strip_prefix("totals:"))?;
    total.trim().parse().ok()
}

/// Instructions for each call, by function.
type Counts = BTreeMap<String, u64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Grew,
    Shrank,
    New,
}

#[derive(Debug, PartialEq, Eq)]
struct Change {
    name: String,
    before: Option<u64>,
    now: u64,
    verdict: Verdict,
}

fn changes(functions: &[Function], before: &Counts, now: &Counts) -> Vec<Change> {
    let counted = functions.iter().filter_map(|function| {
        let now = *now.get(function.name)?;
        let before = before.get(function.name).copied();
        let tolerance = if function.threads {
            TOLERANCE_OF_THREADS
        } else {
            TOLERANCE
        };
        let verdict = before.map_or(Verdict::New, |before| judged(before, now, tolerance));
        Some(Change {
            name: function.name.to_owned(),
            before,
            now,
            verdict,
        })
    });
    counted.collect()
}

fn judged(before: u64, now: u64, tolerance: f64) -> Verdict {
    let (before, now) = (before as f64, now as f64);
    if now > before * (1.0 + tolerance) {
        Verdict::Grew
    } else if now < before * (1.0 - tolerance) {
        Verdict::Shrank
    } else {
        Verdict::Same
    }
}

fn table(changes: &[Change]) -> String {
    let head = ["function", "instructions a call", "kept", "change", ""];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(changes.iter().map(|change| {
        let kept = change.before.map(|before| before.to_string());
        let part = change
            .before
            .map(|before| (change.now as f64 / before.max(1) as f64 - 1.0) * 100.0);
        let verdict = match change.verdict {
            Verdict::Same => "",
            Verdict::Grew => "MORE",
            Verdict::Shrank => "fewer",
            Verdict::New => "new",
        };
        vec![
            change.name.clone(),
            change.now.to_string(),
            kept.unwrap_or_default(),
            part.map_or_else(String::new, |part| format!("{part:+.1} %")),
            verdict.to_owned(),
        ]
    }));
    let mut text = String::new();
    crate::report::aligned(&lines, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &'static str, threads: bool) -> Function {
        Function {
            name,
            calls: 1,
            threads,
            prepare: || Box::new(|| ()),
        }
    }

    fn counts(counts: &[(&str, u64)]) -> Counts {
        let counts = counts.iter();
        counts
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn total_is_found_behind_the_costs() {
        let text = "version: 1\nevents: Ir\nsummary: 7\n\nfn=(1) main\n1 5\ntotals: 123456\n";
        assert_eq!(total(text), Some(123_456));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn only_what_grew_beyond_the_tolerance_is_a_regression() {
        let functions = [
            function("same", false),
            function("grown", false),
            function("shrunk", false),
            function("threaded", true),
            function("new", false),
        ];
        let before = [
            ("same", 100),
            ("grown", 100),
            ("shrunk", 100),
            ("threaded", 100),
        ];
        let now = [
            ("same", 105),
            ("grown", 106),
            ("shrunk", 94),
            ("threaded", 110),
            ("new", 1),
        ];
        let changes = changes(&functions, &counts(&before), &counts(&now));
        let verdicts: Vec<Verdict> = changes.iter().map(|change| change.verdict).collect();
        let expected = [
            Verdict::Same,
            Verdict::Grew,
            Verdict::Shrank,
            Verdict::Same,
            Verdict::New,
        ];
        assert_eq!(verdicts, expected);
        let table = table(&changes);
        assert!(
            table.contains("+6.0 %") && table.contains("MORE"),
            "{table}"
        );
    }

    #[test]
    fn unknown_function_is_an_error() {
        let functions = [function("known", false)];
        assert!(repeat(&functions, "known", "3").is_ok());
        assert!(repeat(&functions, "other", "3").is_err());
        assert!(repeat(&functions, "known", "many").is_err());
    }
}
