use std::fmt::Write as _;

use super::FLOOR;
use super::markdown::aligned;
use crate::checks::Faults;
use crate::record::{Counts, LoadRecord, Row};
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
        Some(reading.opening_cost).filter(|_| reading.churn.is_none())
    }),
    ("opened in ms", |reading| {
        reading.own_opening().filter(|_| reading.churn.is_none())
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
    ("posts/s", |reading| Some(reading.posts_per_second)),
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
    let mut lines = vec![
        ["server", "÷ floor"]
            .into_iter()
            .chain(columns.iter().map(|(head, _)| *head))
            .chain(["runs", "faults"])
            .map(str::to_owned)
            .collect(),
    ];
    lines.extend(rows.iter().map(|row| cells(row, rows, &columns)));
    let mut text = format!("### {}\n\n", capitalised(&load.name));
    aligned(&lines, &mut text);
    for row in rows {
        for failure in &row.failures {
            writeln!(text, "\n{}: {failure}", row.peer).expect("a String takes all");
        }
    }
    text
}

fn cells(row: &Row, rows: &[Row], columns: &[Column]) -> Vec<String> {
    let mut cells = vec![row.peer.clone(), ratio(row, rows, columns)];
    let saturated = row.counted().next().is_none() && !row.readings.is_empty();
    cells.extend(columns.iter().map(|(_, figure)| {
        row.spread(figure)
            .map_or_else(|| "–".to_owned(), Spread::show)
    }));
    let (good, all) = (
        row.counted().count(),
        row.readings.len() + row.failures.len(),
    );
    cells.push(format!("{good}/{all}"));
    let mut faults: Vec<String> = Vec::new();
    if saturated {
        faults.push(format!("load generator not free ({})", shown_load(row)));
    }
    faults.extend(row.readings.iter().fold(None, more).map(show_faults));
    cells.push(if faults.is_empty() {
        "none".to_owned()
    } else {
        faults.join("; ")
    });
    cells
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

/// The ratio of the first column's medians. What streams alone is compared where it can be.
fn ratio(row: &Row, rows: &[Row], columns: &[Column]) -> String {
    let Some((_, figure)) = columns.first() else {
        return String::new();
    };
    let median = |row: &Row, figure: fn(&Reading) -> Option<f64>| {
        row.spread(figure).map(|spread| spread.median)
    };
    let floor = rows.iter().find(|row| row.peer == FLOOR);
    let Some(floor) = floor
        .and_then(|row| median(row, *figure))
        .filter(|floor| *floor > 0.0)
    else {
        return "–".to_owned();
    };
    let shown = |figure| median(row, figure).map(|value| format!("{:.2}", value / floor));
    let all = shown(*figure);
    let streaming = shown(|reading| reading.streaming_cost);
    match (all, streaming) {
        (Some(all), Some(streaming)) => format!("{all}; streaming {streaming}"),
        (Some(all), None) => all,
        (None, _) => "–".to_owned(),
    }
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
        let rows = [floor, other];
        assert_eq!(ratio(&rows[1], &rows, EVENTS), "2.00");
        assert_eq!(ratio(&rows[1], &rows[1..], EVENTS), "–");
        let cells = cells(&rows[1], &rows, EVENTS);
        assert_eq!(cells[2], "4.00 (3.00–5.00)");
        assert_eq!(cells[9..], ["2/3", "none"]);
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
