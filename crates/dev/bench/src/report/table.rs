use std::fmt::Write as _;

use super::FLOOR;
use super::markdown::aligned;
use crate::checks::Faults;
use crate::record::{LoadRecord, Row};
use crate::scenario::Counts;
use crate::scenario::Reading;
use crate::spread::Spread;

/// A column: its head, and the figure that a reading has in it.
type Column = (&'static str, fn(&Reading) -> Option<f64>);

/// Those without a figure of any server are left out.
const STREAMS: &[Column] = &[
    ("KiB a stream, settled", |reading| {
        Some(reading.resident?[1])
    }),
    ("at once", |reading| Some(reading.resident?[0])),
    ("of it streaming, settled", |reading| {
        Some(reading.streaming_resident?[1])
    }),
    ("CPU µs to open one", |reading| {
        Some(reading.opening_cost).filter(|cost| *cost > 0.0)
    }),
    ("opened in ms", |reading| {
        Some(reading.opening).filter(|opening| *opening > 0.0)
    }),
    ("load generator busy %", |reading| {
        let busy = reading.opening_load.working + reading.opening_load.waiting;
        Some(busy * 100.0).filter(|busy| *busy > 0.0)
    }),
    ("begins after p50 ms", |reading| Some(reading.beginning?[0])),
    ("p99 ms", |reading| Some(reading.beginning?[1])),
    ("opened/s", |reading| Some(reading.connecting?.per_second)),
    ("refused", |reading| {
        Some(reading.connecting?.refused as f64)
    }),
    ("SYNs sent again", |reading| {
        Some(reading.connecting?.syn_retransmits as f64)
    }),
    ("reads of history for each channel", |reading| {
        reading.history_reads
    }),
    ("KiB before", |reading| Some(reading.churn?.before)),
    ("KiB after", |reading| Some(reading.churn?.after)),
    ("came and went/s", |reading| Some(reading.churn?.per_second)),
];
const EVENTS: &[Column] = &[
    ("CPU µs an event", |reading| reading.cost),
    ("of it streaming", |reading| reading.streaming_cost),
    ("events/s", |reading| Some(reading.events_per_second)),
    ("p50 ms", |reading| Some(reading.latency?[0])),
    ("p99 ms", |reading| Some(reading.latency?[1])),
    ("p99.9 ms", |reading| Some(reading.latency?[2])),
    ("posts/s", |reading| {
        Some(reading.posts_per_second).filter(|posts| *posts > 0.0)
    }),
    ("processors that streaming used", |reading| {
        reading.streaming_share
    }),
];
const POSTS: &[Column] = &[
    ("CPU µs a post", |reading| reading.cost),
    ("posts/s", |reading| Some(reading.posts_per_second)),
    ("p50 ms", |reading| Some(reading.post?[0])),
    ("p99 ms", |reading| Some(reading.post?[1])),
];

/// The table of one load, in Markdown.
pub(crate) fn table(load: &LoadRecord) -> String {
    let columns = match load.counts {
        Counts::Streams => STREAMS,
        Counts::Posts => POSTS,
        Counts::Events => EVENTS,
    };
    let rows = &load.rows;
    let columns = columns.iter().copied();
    let columns = columns.filter(|(_, figure)| rows.iter().any(|row| row.spread(figure).is_some()));
    let columns: Vec<Column> = columns.collect();
    let ratios: Vec<_> = rows.iter().map(|row| ratio(row, load)).collect();
    let compared = ratios.iter().any(Option::is_some);
    let head = std::iter::once("server")
        .chain(compared.then_some("CPU ÷ floor"))
        .chain(columns.iter().map(|(head, _)| *head))
        .chain(["runs", "faults"]);
    let mut lines = vec![head.map(str::to_owned).collect()];
    lines.extend(rows.iter().zip(ratios).map(|(row, ratio)| {
        let mut cells = vec![row.peer.clone()];
        cells.extend(compared.then(|| ratio.unwrap_or_else(missing)));
        let figures = columns
            .iter()
            .map(|(_, figure)| row.spread(figure).map_or_else(missing, Spread::show));
        cells.extend(figures);
        cells.push(format!("{}/{}", row.counted().count(), row.runs()));
        cells.push(faults(row));
        cells
    }));
    let mut text = format!("### {}\n\n", capitalised(&load.name));
    aligned(&lines, &mut text);
    for row in rows {
        let mut failures: Vec<&String> = row.failures.iter().collect();
        failures.sort();
        for same in failures.chunk_by(PartialEq::eq) {
            let times = same.len();
            writeln!(text, "\n{}, {times} ×: {}", row.peer, same[0]).expect("a String takes all");
        }
    }
    text
}

fn missing() -> String {
    "–".to_owned()
}

fn faults(row: &Row) -> String {
    let mut faults: Vec<String> = Vec::new();
    if row.counted().next().is_none() && !row.readings.is_empty() {
        faults.push(format!("load generator not free ({})", shown_load(row)));
    }
    faults.extend(row.readings.iter().fold(None, more).map(show_faults));
    if faults.is_empty() && row.readings.is_empty() {
        return missing();
    }
    if faults.is_empty() {
        return "none".to_owned();
    }
    faults.join("; ")
}

/// How busy the load generator was at most, with and without waiting for its processor.
fn shown_load(row: &Row) -> String {
    let most = |part: fn(&Reading) -> f64| row.readings.iter().map(part).fold(0.0, f64::max);
    format!(
        "worked {:.0} % of the time, waited for its processor {:.0} %",
        most(|reading| reading.load.working) * 100.0,
        most(|reading| reading.load.waiting) * 100.0
    )
}

/// The processor time that is compared.
fn cost(reading: &Reading, counts: Counts) -> Option<f64> {
    match counts {
        Counts::Streams => Some(reading.opening_cost).filter(|cost| *cost > 0.0),
        Counts::Events | Counts::Posts => reading.cost,
    }
}

/// The ratio of the medians. What streams alone is compared where it can be.
fn ratio(row: &Row, load: &LoadRecord) -> Option<String> {
    let median = |row: &Row| row.spread(|reading| cost(reading, load.counts));
    let floor = load.row(FLOOR).and_then(median)?.median;
    let shown = |spread: Spread| format!("{:.2}", spread.median / floor);
    let all = shown(median(row)?);
    let streaming = row.spread(|reading| reading.streaming_cost).map(shown);
    Some(match streaming {
        Some(streaming) => format!("{all}; streaming {streaming}"),
        None => all,
    })
}

fn more(sum: Option<(Faults, u64)>, reading: &Reading) -> Option<(Faults, u64)> {
    if reading.faults.is_none() && reading.refused == 0 {
        return sum;
    }
    let (sum, refused) = sum.unwrap_or_default();
    let faults = reading.faults;
    Some((
        Faults {
            lost: sum.lost + faults.lost,
            doubled: sum.doubled + faults.doubled,
            disordered: sum.disordered + faults.disordered,
            misdirected: sum.misdirected + faults.misdirected,
            ended: sum.ended + faults.ended,
        },
        refused + reading.refused,
    ))
}

fn show_faults((faults, refused): (Faults, u64)) -> String {
    let shown: Vec<String> = [
        (faults.lost, "lost"),
        (faults.doubled, "doubled"),
        (faults.disordered, "out of order"),
        (faults.misdirected, "of another channel"),
        (faults.ended, "streams ended"),
        (refused, "posts refused"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    shown.join(", ")
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Share;

    fn row(peer: &str, costs: &[f64]) -> Row {
        let readings = costs.iter().map(|cost| Reading {
            cost: Some(*cost),
            ..Reading::default()
        });
        Row {
            readings: readings.collect(),
            ..Row::of(peer)
        }
    }

    #[test]
    fn ratios_are_of_medians_and_leave_out_a_saturated_load() {
        let floor = row("floor", &[1.0, 2.0, 9.0]);
        let mut other = row("other", &[5.0, 3.0, 100.0]);
        other.readings[2].load = Share {
            working: 0.5,
            waiting: 0.45,
        };
        let load = LoadRecord {
            rows: vec![floor, other],
            ..LoadRecord::default()
        };
        assert_eq!(ratio(&load.rows[1], &load).as_deref(), Some("2.00"));
        let table = table(&load);
        assert!(table.contains("4 (3–5)"), "{table}");
        assert!(table.contains("| 2/3  | none"), "{table}");
    }

    #[test]
    fn columns_without_a_figure_are_left_out() {
        let load = LoadRecord {
            counts: Counts::Streams,
            rows: vec![row("hark", &[1.0]), Row::of("other")],
            ..LoadRecord::default()
        };
        let table = table(&load);
        assert!(
            !table.contains("÷ floor") && !table.contains("SYNs"),
            "{table}"
        );
        assert!(table.contains("| 0/0  | –"), "{table}");
    }

    #[test]
    fn losses_stand_in_the_table() {
        let mut lossy = row("lossy", &[1.0, 1.0]);
        lossy.readings[0].faults.lost = 3;
        lossy.readings[1].faults.lost = 4;
        lossy.readings[1].refused = 1;
        let load = LoadRecord {
            rows: vec![lossy],
            ..LoadRecord::default()
        };
        let table = table(&load);
        assert!(table.contains("7 lost, 1 posts refused"), "{table}");
    }
}
