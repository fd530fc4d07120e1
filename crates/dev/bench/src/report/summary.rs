//! The three figures that matter, for the README.

use std::fmt::Write as _;

use super::targets::median;
use super::{FLOOR, HARK, is_durable, title};
use crate::record::Record;
use crate::scenario::Reading;
use crate::spread::number;

type Figure = fn(&Reading) -> Option<f64>;

/// In Markdown; rows without a figure of Hark are left out.
pub(super) fn summary(record: &Record) -> String {
    let mut text = format!(
        "Medians of readings taken in turn on {}, the server on one processor, {}:\n\n\
         | | Hark | others |\n|---|---|---|\n",
        record.machine.processor,
        record.date.split('T').next().unwrap_or_default()
    );
    let lines = [memory(record), cpu(record), posts(record)];
    for (what, ours, others) in lines.into_iter().flatten() {
        writeln!(text, "| {what} | **{ours}** | {others} |").expect("a String takes all");
    }
    text.push_str(
        "\n[docs/benchmarks.md](docs/benchmarks.md) has all loads, what got lost, every configuration, and the command \
         to repeat it.\nThe floor is a bare epoll loop that stores nothing: one `send` for each listener.",
    );
    text
}

/// What it is, ours, and the others.
type Line = (String, String, String);

fn memory(record: &Record) -> Option<Line> {
    let figure: Figure = |reading| Some(reading.resident?[1]);
    let name = &record.load("idle")?.name;
    Some((
        format!("memory for each of {name}"),
        format!("{} KiB", number(median(record, "idle", HARK, figure)?)),
        listed(others(record, "idle", figure, Better::Less), |value| {
            format!("{} KiB", number(value))
        }),
    ))
}

fn cpu(record: &Record) -> Option<Line> {
    let id = "fan-out-1000";
    let figure: Figure = |reading| reading.cost;
    let floor = median(record, id, FLOOR, figure)?;
    let times = |value: f64| format!("{} ×", number(value / floor));
    let streaming = median(record, id, HARK, |reading| reading.streaming_cost)?;
    let all = median(record, id, HARK, figure)?;
    Some((
        format!(
            "CPU for a delivered event ÷ the floor's; {}",
            record.load(id)?.name
        ),
        format!("{}, with store and broker {}", times(streaming), times(all)),
        listed(others(record, id, figure, Better::Less), times),
    ))
}

fn posts(record: &Record) -> Option<Line> {
    let id = "post-100";
    let figure: Figure = |reading| Some(reading.posts_per_second);
    let rate = |value: f64| format!("{}/s", number(value));
    let (durable, fleeting): (Vec<_>, Vec<_>) = others(record, id, figure, Better::More)
        .into_iter()
        .partition(|(peer, _)| is_durable(peer));
    let others = [("on disk", durable), ("in memory", fleeting)];
    let others = others.into_iter().filter(|(_, peers)| !peers.is_empty());
    let others: Vec<String> = others
        .map(|(kind, peers)| format!("{kind}: {}", listed(peers, rate)))
        .collect();
    Some((
        "posts; ours are on disk before they are answered".to_owned(),
        rate(median(record, id, HARK, figure)?),
        others.join("; "),
    ))
}

#[derive(Clone, Copy, PartialEq)]
enum Better {
    Less,
    More,
}

/// The peers with their medians, best first. Floor and baseline are no product that one could choose.
fn others<'a>(record: &'a Record, id: &str, figure: Figure, better: Better) -> Vec<(&'a str, f64)> {
    let names = record.servers.iter().map(|server| server.name.as_str());
    let names = names.filter(|name| ![FLOOR, HARK, "hark-mosquitto", "axum"].contains(name));
    let mut peers: Vec<(&str, f64)> = names
        .filter_map(|name| Some((name, median(record, id, name, figure)?)))
        .collect();
    peers.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    if better == Better::More {
        peers.reverse();
    }
    peers
}

fn listed(peers: Vec<(&str, f64)>, show: impl Fn(f64) -> String) -> String {
    let peers = peers.into_iter();
    let peers: Vec<String> = peers
        .map(|(peer, value)| format!("{} {}", title(peer), show(value)))
        .collect();
    peers.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{LoadRecord, Row, ServerRecord};

    fn record(id: &str, peers: &[(&str, Reading)]) -> Record {
        let servers = peers.iter().map(|(name, _)| ServerRecord {
            name: (*name).to_owned(),
            version: Some("1".to_owned()),
            ..ServerRecord::default()
        });
        let rows = peers.iter().map(|(peer, reading)| Row {
            readings: vec![reading.clone()],
            ..Row::of(peer)
        });
        let load = LoadRecord {
            id: id.to_owned(),
            name: "a load".to_owned(),
            rows: rows.collect(),
            ..LoadRecord::default()
        };
        Record {
            servers: servers.collect(),
            loads: vec![load],
            ..Record::default()
        }
    }

    fn posts_per_second(posts_per_second: f64) -> Reading {
        Reading {
            posts_per_second,
            ..Reading::default()
        }
    }

    #[test]
    fn posts_on_disk_stand_apart_from_those_in_memory() {
        let record = record(
            "post-100",
            &[
                ("floor", posts_per_second(9e5)),
                ("hark", posts_per_second(25_000.0)),
                ("nchan", posts_per_second(95_000.0)),
                ("mercure-bolt", posts_per_second(2_000.0)),
                ("ntfy-sqlite", posts_per_second(2_900.0)),
            ],
        );
        let (_, ours, others) = posts(&record).unwrap();
        assert_eq!(ours, "25.0 k/s");
        assert_eq!(
            others,
            "on disk: ntfy with SQLite 2900/s, Mercure with Bolt 2000/s; in memory: Nchan 95.0 k/s"
        );
        assert!(!summary(&record).contains("CPU"), "not measured");
    }

    #[test]
    fn cpu_is_told_relative_to_the_floor() {
        let costs = |cost, streaming_cost| Reading {
            cost: Some(cost),
            streaming_cost,
            ..Reading::default()
        };
        let record = record(
            "fan-out-1000",
            &[
                ("floor", costs(2.0, None)),
                ("hark", costs(3.0, Some(2.5))),
                ("ntfy", costs(8.0, None)),
                ("nchan", costs(4.0, None)),
            ],
        );
        let (_, ours, others) = cpu(&record).unwrap();
        assert_eq!(ours, "1.25 ×, with store and broker 1.50 ×");
        assert_eq!(others, "Nchan 2 ×, ntfy 4 ×");
    }
}
