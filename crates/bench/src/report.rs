//! The report: tables of medians, with minimum and maximum, and ratios to the floor.

mod markdown;
mod table;

use std::fmt::Write as _;

use crate::record::Record;
use markdown::aligned;
pub(crate) use table::table;

/// The peer that the others are compared with.
const FLOOR: &str = "floor";

/// What was measured and on what, and a table for each load.
pub(crate) fn text(record: &Record) -> String {
    let mut text = machine(record);
    text.push('\n');
    aligned(&servers(record), &mut text);
    for load in &record.loads {
        text.push('\n');
        text.push_str(&table(load));
    }
    text
}

fn machine(record: &Record) -> String {
    let machine = &record.machine;
    let [servers, load] = record.pinned;
    let loads = record.loads.iter();
    let runs = |load: &crate::record::LoadRecord| {
        let rows = load.rows.iter();
        rows.map(|row| row.readings.len() + row.failures.len())
            .max()
    };
    let mut rounds: Vec<usize> = loads.filter_map(runs).collect();
    rounds.sort_unstable();
    rounds.dedup();
    let rounds: Vec<String> = rounds.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    writeln!(
        text,
        "{} with {} processors, {:.1} GiB of memory, {}; {} open files for each process; a write of 4 KiB with fsync \
         takes {:.2} ms. Servers on processor {servers}, load generator on processor {load}.\n\
         {} rounds, the servers in turn in each; medians (minimum–maximum). Messages of 100 bytes.",
        machine.processor,
        machine.processors,
        machine.memory as f64 / f64::from(1 << 30),
        machine.kernel,
        machine.files.map_or_else(|| "any number of".to_owned(), |files| files.to_string()),
        machine.fsync,
        rounds.join(" or "),
    )
    .expect("a String takes all");
    text
}

fn servers(record: &Record) -> Vec<Vec<String>> {
    let head = ["server", "version", "setup"].map(str::to_owned).to_vec();
    let servers = record.servers.iter().map(|server| {
        let version = server.version.clone();
        vec![
            server.name.clone(),
            version.unwrap_or_else(|| "not installed".to_owned()),
            server.setup.clone(),
        ]
    });
    std::iter::once(head).chain(servers).collect()
}
