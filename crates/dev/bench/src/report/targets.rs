mod list;

use Bound::{AtLeast, AtMost};

use super::markdown::aligned;
use super::{FLOOR, HARK};
use crate::record::Record;
use crate::scenario::{self, Reading};
use crate::spread::number;
use list::TARGETS;

/// What Hark is to reach: one figure of one load.
struct Target {
    /// The load's id.
    load: &'static str,
    figure: &'static str,
    bound: Bound,
    /// Asked with the load's id. `None`: not measured.
    reached: fn(&Record, &str) -> Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

const MOSQUITTO: &str = "hark-mosquitto";

/// The table of all targets, in Markdown.
pub(super) fn table(record: &Record) -> String {
    let head = ["load", "figure", "target", "reached", "met"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(TARGETS.iter().map(|target| {
        let measured = record.load(target.load).and_then(|load| load.row(HARK));
        let reached = (target.reached)(record, target.load).ok_or(match measured {
            Some(row) if row.runs() > 0 => "no figure",
            _ => "not measured",
        });
        line(
            &name(record, target.load),
            target.figure,
            target.bound,
            reached,
        )
    }));
    let figure = "lost, doubled or out of order, or streams ended";
    lines.push(line(
        "all",
        figure,
        AtMost(0.0),
        faults(record).ok_or("not measured"),
    ));
    let mut text = String::new();
    aligned(&lines, &mut text);
    text.push_str(
        "\n*No figure*: the load generator had no time left, or the other server has none.\n",
    );
    text
}

impl Bound {
    fn is_met(self, reached: f64) -> bool {
        match self {
            AtMost(bound) => reached <= bound,
            AtLeast(bound) => reached >= bound,
        }
    }

    fn show(self) -> String {
        match self {
            AtMost(bound) => format!("≤ {bound}"),
            AtLeast(bound) => format!("≥ {bound}"),
        }
    }
}

fn line(load: &str, figure: &str, bound: Bound, reached: Result<f64, &str>) -> Vec<String> {
    let (shown, met) = match reached {
        Ok(reached) if bound.is_met(reached) => (number(reached), "yes"),
        Ok(reached) => (number(reached), "**no**"),
        Err(why) => (why.to_owned(), "–"),
    };
    vec![
        load.to_owned(),
        figure.to_owned(),
        bound.show(),
        shown,
        met.to_owned(),
    ]
}

/// A load's name, also of one that was not measured.
fn name(record: &Record, id: &str) -> String {
    let measured = record.load(id).map(|load| load.name.clone());
    measured.unwrap_or_else(|| {
        let all = scenario::all(false).into_iter();
        let mut names = all.filter(|scenario| scenario.id == id);
        let known = names.next().map(|scenario| scenario.name);
        known.unwrap_or_else(|| id.to_owned())
    })
}

type Figure = fn(&Reading) -> Option<f64>;

pub(super) fn median(record: &Record, load: &str, peer: &str, figure: Figure) -> Option<f64> {
    let spread = record.load(load)?.row(peer)?.spread(figure)?;
    Some(spread.median)
}

/// The most that Hark showed in any round.
fn most(record: &Record, load: &str, figure: Figure) -> Option<f64> {
    let spread = record.load(load)?.row(HARK)?.spread(figure)?;
    Some(spread.most)
}

/// Hark's median divided by that of a peer.
fn to_peer(record: &Record, load: &str, peer: &str, figure: Figure) -> Option<f64> {
    quotient(
        median(record, load, HARK, figure),
        median(record, load, peer, figure),
    )
}

/// The CPU of streaming an event, divided by the floor's.
fn streaming_of(record: &Record, load: &str, peer: &str) -> Option<f64> {
    quotient(
        median(record, load, peer, |reading| reading.streaming_cost),
        median(record, load, FLOOR, |reading| reading.cost),
    )
}

fn quotient(dividend: Option<f64>, divisor: Option<f64>) -> Option<f64> {
    let divisor = divisor.filter(|divisor| *divisor > 0.0)?;
    Some(dividend? / divisor)
}

/// Hark's in all loads and rounds.
fn faults(record: &Record) -> Option<f64> {
    let rows = record.loads.iter().flat_map(|load| &load.rows);
    let ours = rows.filter(|row| [HARK, MOSQUITTO].contains(&row.peer.as_str()));
    let readings = ours.flat_map(|row| &row.readings);
    let faults = readings.map(|reading| {
        let faults = reading.faults;
        faults.lost + faults.doubled + faults.disordered + faults.misdirected + faults.ended
    });
    let faults: Vec<u64> = faults.collect();
    (!faults.is_empty()).then(|| faults.iter().sum::<u64>() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{LoadRecord, Row};

    fn load(id: &str, rows: &[(&str, Reading)]) -> LoadRecord {
        let rows = rows.iter().map(|(peer, reading)| Row {
            readings: vec![reading.clone(); 3],
            ..Row::of(peer)
        });
        LoadRecord {
            id: id.to_owned(),
            name: format!("the load {id}"),
            rows: rows.collect(),
            ..LoadRecord::default()
        }
    }

    fn of_loads(loads: Vec<LoadRecord>) -> Record {
        Record {
            loads,
            ..Record::default()
        }
    }

    fn lines(record: &Record, load: &str) -> Vec<Vec<String>> {
        let table = table(record);
        let lines = table.lines().map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        });
        lines.filter(|line: &Vec<String>| line[0] == load).collect()
    }

    #[test]
    fn bounds_include_themselves() {
        assert!(AtMost(1.3).is_met(1.3));
        assert!(!AtMost(1.3).is_met(1.31));
        assert!(AtLeast(0.7).is_met(0.7));
        assert!(!AtLeast(0.7).is_met(0.69));
    }

    #[test]
    fn streaming_alone_is_compared_with_the_floor() {
        let floor = Reading {
            cost: Some(2.0),
            ..Reading::default()
        };
        let hark = Reading {
            cost: Some(9.0),
            streaming_cost: Some(2.5),
            ..Reading::default()
        };
        let record = of_loads(vec![load(
            "fan-out-1000",
            &[("floor", floor), ("hark", hark)],
        )]);
        let [line] = &lines(&record, "the load fan-out-1000")[..] else {
            panic!("one target");
        };
        assert_eq!(line[2..], ["≤ 1.3", "1.25", "yes"]);
    }

    #[test]
    fn what_is_missing_is_neither_met_nor_missed() {
        let hark = Reading {
            posts_per_second: 10.0,
            ..Reading::default()
        };
        let slower = Reading {
            posts_per_second: 5.0,
            ..Reading::default()
        };
        let record = of_loads(vec![load(
            "post-100",
            &[("hark", hark), ("mercure-bolt", slower)],
        )]);
        let lines = lines(&record, "the load post-100");
        assert_eq!(lines[0][3..], ["no figure", "–"]);
        assert_eq!(lines[1][3..], ["2", "**no**"]);
        assert_eq!(
            self::lines(&record, "15000 idle streams")[0][3..],
            ["not measured", "–"]
        );
    }

    #[test]
    fn faults_of_every_round_count() {
        let mut lossy = Reading::default();
        lossy.faults.lost = 2;
        lossy.faults.doubled = 1;
        let record = of_loads(vec![load(
            "idle",
            &[("hark", lossy.clone()), ("other", lossy)],
        )]);
        assert_eq!(lines(&record, "all")[0][3..], ["9", "**no**"]);
    }
}
