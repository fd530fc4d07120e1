//! The report: tables of medians, with minimum and maximum, and ratios to the floor.

mod charts;
pub(crate) mod markdown;
mod summary;
mod table;
mod targets;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::record::{LoadRecord, Record, Row};
use crate::spread::Spread;
pub(crate) use markdown::aligned;
use markdown::between;
pub(crate) use table::table;

/// The peer that the others are compared with.
const FLOOR: &str = "floor";
const HARK: &str = "hark";

/// Between these lines of the README its figures stand.
const BEGIN: &str = "<!-- benchmarks: written by `cargo xtask bench` -->";
const END: &str = "<!-- /benchmarks -->";

/// Written by people, who look for the reason of what is missed.
const EXPLAINED: &str = "performance.md";

const HOW: &str = "\
Every server runs alone, pinned to one processor; the load generator has another. It is one thread, and checks every
event on every stream: what was lost, doubled or out of order stands in the last column, everyone's. *CPU* is the user
and system time of all processes of a server, from /proc, divided by what was delivered (or posted); *streaming* is the
part of it that the process which serves streams took. *÷ floor* divides CPU by that of the floor, a minimal program
that does one `send` for each listener: absolute figures differ between machines, these ratios much less. p50, p99 and
p99.9 of events are from publishing to delivery, those of posts from the request to its answer. *Saturated*: publishers
post as soon as they are answered. Runs in which the load generator worked or waited for its processor for more than
90 % of the time are not counted, unless the servers used up theirs: they would measure the load generator. Streams that
open are no such run, but where it was busy all the time, the server could have been faster than the time that stands
there.
";

/// What was measured and on what, whether the targets are met, and a table for each load.
pub(crate) fn text(record: &Record) -> String {
    let mut text = machine(record);
    text.push('\n');
    aligned(&servers(record), &mut text);
    write!(text, "\n## Targets\n\n{}", targets::table(record)).expect("a String takes all");
    text.push_str("\n## Loads\n");
    for load in &record.loads {
        text.push('\n');
        text.push_str(&table(load));
    }
    text
}

/// Writes `docs/benchmarks.md`, its pictures, and the README's figures.
pub(crate) fn publish(record: &Record, root: &Path) -> io::Result<()> {
    let pictures = charts::all(record);
    let folder = root.join("docs/images");
    fs::create_dir_all(&folder)?;
    for picture in &pictures {
        let file = folder.join(format!("bench-{}.svg", picture.name));
        fs::write(file, picture.chart.svg())?;
    }
    let mut document = document(record, &pictures);
    if root.join("docs").join(EXPLAINED).is_file() {
        let link = format!("## Targets\n\nWhat is missed, and why: [{EXPLAINED}]({EXPLAINED}).\n");
        document = document.replacen("## Targets\n", &link, 1);
    }
    fs::write(root.join("docs/benchmarks.md"), document)?;
    let readme = root.join("README.md");
    let text = fs::read_to_string(&readme)?;
    let text = between(&text, BEGIN, END, &summary::summary(record));
    let text = text.map_err(|error| io::Error::other(format!("README.md: {error}")))?;
    fs::write(readme, text)
}

fn document(record: &Record, pictures: &[charts::Picture]) -> String {
    let mut text = format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench`; do not edit.\n\n{HOW}\n{}\n",
        text(record).replacen("## Targets", &shown(pictures), 1)
    );
    text.push_str("## Configurations\n");
    for server in &record.servers {
        if server.configuration.is_empty() {
            continue;
        }
        write!(
            text,
            "\n<details>\n<summary>{}</summary>\n",
            title(&server.name)
        )
        .expect("a String takes all");
        for (name, file) in &server.configuration {
            let file = file.trim_end();
            write!(text, "\n{name}:\n\n```\n{file}\n```\n").expect("a String takes all");
        }
        text.push_str("\n</details>\n");
    }
    let commands = record.commands.join("\n");
    write!(
        text,
        "\n## Repeat it\n\n```sh\n{commands}\n```\n\nNchan is in Debian (`nginx`, `libnginx-mod-nchan`). The other \
         peers' programs are taken from `PATH`, or given with `--peer NAME=PATH`.\n"
    )
    .expect("a String takes all");
    text
}

/// The pictures, and behind them the head of the targets.
fn shown(pictures: &[charts::Picture]) -> String {
    let pictures = pictures.iter().map(|picture| {
        let title = &picture.chart.title;
        format!("![{title}](images/bench-{}.svg)\n\n", picture.name)
    });
    let mut text: String = std::iter::once("## At a glance\n\n".to_owned())
        .chain(pictures)
        .collect();
    text.push_str("## Targets");
    text
}

fn machine(record: &Record) -> String {
    let machine = &record.machine;
    let [servers, load] = record.pinned;
    let files = machine.files.map(|files| files.to_string());
    let day = record.date.split('T').next().unwrap_or_default();
    let fsync = Spread::of(record.fsync.iter().copied());
    let mut text = String::new();
    writeln!(
        text,
        "{day}, Hark at commit {}. {} with {} processors, {:.1} GiB of memory, {}; {} open files for each process; a \
         write of 4 KiB with fsync takes {} ms. Servers on processor {servers}, load generator on processor {load}. \
         {} rounds, the servers in turn in each; medians (minimum–maximum). Messages of 100 bytes.",
        record.commit,
        machine.processor,
        machine.processors,
        machine.memory as f64 / f64::from(1 << 30),
        machine.kernel,
        files.as_deref().unwrap_or("any number of"),
        fsync.map_or_else(|| "unknown".to_owned(), Spread::show),
        rounds(&record.loads),
    )
    .expect("a String takes all");
    text
}

/// How often every server had its turn.
fn rounds(loads: &[LoadRecord]) -> String {
    let runs = loads
        .iter()
        .filter_map(|load| load.rows.iter().map(Row::runs).max());
    let mut rounds: Vec<usize> = runs.collect();
    rounds.sort_unstable();
    rounds.dedup();
    let rounds: Vec<String> = rounds.iter().map(ToString::to_string).collect();
    rounds.join(" or ")
}

fn servers(record: &Record) -> Vec<Vec<String>> {
    let head = ["server", "version"].map(str::to_owned).to_vec();
    let servers = record.servers.iter().map(|server| {
        let version = server.version.clone();
        let version = version.unwrap_or_else(|| "not installed".to_owned());
        vec![server.name.clone(), version]
    });
    std::iter::once(head).chain(servers).collect()
}

/// A server's name as its makers write it.
fn title(peer: &str) -> String {
    let title = match peer {
        "floor" => "the floor",
        "hark" => "Hark",
        "hark-mosquitto" => "Hark with mosquitto",
        "axum" => "plain axum",
        "nchan" => "Nchan",
        "centrifugo" => "Centrifugo",
        "mercure" => "Mercure",
        "mercure-bolt" => "Mercure with Bolt",
        "ntfy-sqlite" => "ntfy with SQLite",
        other => other,
    };
    title.to_owned()
}

/// Whether it has a message on disk before it answers.
fn is_durable(peer: &str) -> bool {
    [HARK, "hark-mosquitto", "mercure-bolt", "ntfy-sqlite"].contains(&peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ServerRecord;
    use crate::scenario::Reading;

    fn record() -> Record {
        let server = |name: &str, version: Option<&str>| ServerRecord {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            configuration: vec![("file.conf".to_owned(), "fast on;\n".to_owned())],
            ..ServerRecord::default()
        };
        Record {
            date: "2026-11-21T10:00:00.000Z".to_owned(),
            commands: vec!["cargo xtask bench".to_owned()],
            servers: vec![server("hark", Some("1.2.3")), server("ntfy", None)],
            loads: vec![LoadRecord {
                id: "idle".to_owned(),
                name: "5 idle streams".to_owned(),
                counts: crate::scenario::Counts::Streams,
                rows: vec![Row {
                    readings: vec![Reading {
                        resident: Some([3.0, 2.0]),
                        ..Reading::default()
                    }],
                    ..Row::of("hark")
                }],
            }],
            ..Record::default()
        }
    }

    #[test]
    fn everything_is_written_from_the_readings() {
        let root = tempfile::tempdir().unwrap();
        let readme = root.path().join("README.md");
        fs::write(&readme, format!("# Hark\n{BEGIN}\nold\n{END}\nMore\n")).unwrap();
        publish(&record(), root.path()).unwrap();
        let document = fs::read_to_string(root.path().join("docs/benchmarks.md")).unwrap();
        for part in [
            "2026-11-21",
            "| ntfy   | not installed |",
            "![Memory of an idle stream](images/bench-memory.svg)",
            "| 5 idle streams ",
            "fast on;",
            "cargo xtask bench\n",
        ] {
            assert!(document.contains(part), "{part} in {document}");
        }
        assert!(root.path().join("docs/images/bench-memory.svg").is_file());
        assert!(!root.path().join("docs/images/bench-posts.svg").exists());
        let readme = fs::read_to_string(readme).unwrap();
        assert!(readme.contains("**2 KiB**") && !readme.contains("old"));
        assert!(readme.ends_with("\nMore\n"));
    }

    #[test]
    fn readme_of_this_project_has_its_markers() {
        let readme = include_str!("../../../../README.md");
        let new = between(readme, BEGIN, END, "figures").unwrap();
        assert!(new.contains(&format!("{BEGIN}\nfigures\n{END}\n")));
    }

    #[test]
    fn explanations_are_pointed_to_when_there_are_any() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("README.md"), format!("{BEGIN}\n{END}\n")).unwrap();
        let read = || {
            publish(&record(), root.path()).unwrap();
            fs::read_to_string(root.path().join("docs/benchmarks.md")).unwrap()
        };
        assert!(!read().contains("and why"));
        fs::write(root.path().join("docs").join(EXPLAINED), "").unwrap();
        assert!(read().contains("(performance.md).\n\n| load"));
    }

    #[test]
    fn readme_without_its_markers_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("README.md"), "# Hark\n").unwrap();
        let error = publish(&record(), root.path()).unwrap_err();
        assert!(error.to_string().contains("README.md"), "{error}");
    }
}
