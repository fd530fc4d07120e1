use super::{FLOOR, HARK, is_durable, title};
use crate::plot::{Bar, Chart, Kind, Panel};
use crate::record::{LoadRecord, Record};
use crate::scenario::Reading;
use crate::spread::Spread;

/// A picture: the end of its file's name, and what is drawn.
pub(super) struct Picture {
    pub(super) name: &'static str,
    pub(super) chart: Chart,
}

type Figure = fn(&Reading) -> Option<f64>;

/// A panel: the load's id, what is drawn, its figure.
type Plan = (&'static str, &'static str, Figure);

const MEMORY: &[Plan] = &[("idle", "KiB for each stream", |reading| {
    Some(reading.resident?[1])
})];
const SATURATED: &[Plan] = &[
    ("saturated-1000", "events/s, longer is better", events),
    (
        "saturated-1000",
        "p99 delay in ms, shorter is better",
        delay,
    ),
    ("saturated-10000", "events/s, longer is better", events),
    (
        "saturated-10000",
        "p99 delay in ms, shorter is better",
        delay,
    ),
];
const CONNECT: &[Plan] = &[
    ("connect", "ms until all have begun", opening),
    ("connect", "CPU µs for each", opening_cost),
    ("resume", "ms until all have begun", opening),
    ("resume", "CPU µs for each", opening_cost),
];
const POSTS: &[Plan] = &[
    ("post-100", "posts/s", posts),
    ("post-10000", "posts/s", posts),
];

/// Those for which there are readings.
pub(super) fn all(record: &Record) -> Vec<Picture> {
    let note =
        |better: &str| format!("{better} Medians of all rounds, whiskers from minimum to maximum.");
    let picture = |name, title: &str, better, panels| Picture {
        name,
        chart: Chart {
            title: title.to_owned(),
            note: note(better),
            panels,
        },
    };
    let pictures = [
        picture(
            "cpu",
            "CPU for each delivered event, divided by the floor's",
            "Shorter is better.",
            fan_out(record),
        ),
        picture(
            "memory",
            "Memory of an idle stream",
            "Shorter is better.",
            panels(record, MEMORY, title),
        ),
        picture(
            "saturated",
            "Saturated: publishers post as soon as they are answered",
            "",
            panels(record, SATURATED, title),
        ),
        picture(
            "connect",
            "Streams that connect, and that resume",
            "Shorter is better.",
            panels(record, CONNECT, title),
        ),
        picture(
            "posts",
            "Posts",
            "Longer is better.",
            panels(record, POSTS, |peer| {
                let title = title(peer);
                if is_durable(peer) {
                    format!("{title} · on disk")
                } else {
                    title
                }
            }),
        ),
    ];
    let drawn = |picture: &Picture| !picture.chart.panels.is_empty();
    pictures.into_iter().filter(drawn).collect()
}

fn panels(record: &Record, plans: &[Plan], label: impl Fn(&str) -> String) -> Vec<Panel> {
    let plans = plans.iter().filter_map(|(id, what, figure)| {
        let load = record.load(id)?;
        let bar = |peer: &str| Bar {
            label: label(peer),
            kind: kind(peer),
            spread: spread(record, load, peer, *figure),
        };
        let panel = Panel {
            title: format!("{}: {what}", load.name),
            bars: peers(record, load).map(bar).collect(),
        };
        Some(panel).filter(has_readings)
    });
    plans.collect()
}

/// Hark stands there twice: its streaming alone does what a peer without store and broker does.
fn fan_out(record: &Record) -> Vec<Panel> {
    let ids = ["fan-out-1000", "fan-out-10000", "fan-out-channels"];
    let loads = ids.into_iter().filter_map(|id| record.load(id));
    let panels = loads.filter_map(|load| {
        let floor = spread(record, load, FLOOR, cost).ok()?;
        let bar = |peer: &str, label: String, figure: Figure| Bar {
            label,
            kind: kind(peer),
            spread: spread(record, load, peer, figure)
                .map(|spread| spread.divided_by(floor.median)),
        };
        let bars = peers(record, load).flat_map(|peer| {
            if peer == HARK {
                vec![
                    bar(peer, "Hark · streaming".to_owned(), |reading| {
                        reading.streaming_cost
                    }),
                    bar(peer, "Hark · with store, broker".to_owned(), cost),
                ]
            } else {
                vec![bar(peer, title(peer), cost)]
            }
        });
        let panel = Panel {
            title: load.name.clone(),
            bars: bars.collect(),
        };
        Some(panel)
    });
    panels.collect()
}

/// Those that the load was put on, and those that are not installed.
fn peers<'a>(record: &'a Record, load: &'a LoadRecord) -> impl Iterator<Item = &'a str> {
    let servers = record.servers.iter();
    let drawn =
        servers.filter(|server| server.version.is_none() || load.row(&server.name).is_some());
    drawn.map(|server| server.name.as_str())
}

fn kind(peer: &str) -> Kind {
    match peer {
        HARK | "hark-mosquitto" => Kind::Ours,
        FLOOR => Kind::Floor,
        _ => Kind::Other,
    }
}

/// Or why there is none.
fn spread(
    record: &Record,
    load: &LoadRecord,
    peer: &str,
    figure: Figure,
) -> Result<Spread, String> {
    let mut servers = record.servers.iter();
    if servers.any(|server| server.name == peer && server.version.is_none()) {
        return Err("not installed".to_owned());
    }
    let spread = load.row(peer).and_then(|row| row.spread(figure));
    spread.ok_or_else(|| "no figure".to_owned())
}

fn has_readings(panel: &Panel) -> bool {
    panel.bars.iter().any(|bar| bar.spread.is_ok())
}

fn cost(reading: &Reading) -> Option<f64> {
    reading.cost
}

fn events(reading: &Reading) -> Option<f64> {
    Some(reading.events_per_second)
}

fn delay(reading: &Reading) -> Option<f64> {
    Some(reading.latency?[1])
}

fn opening(reading: &Reading) -> Option<f64> {
    Some(reading.opening)
}

fn opening_cost(reading: &Reading) -> Option<f64> {
    Some(reading.opening_cost)
}

fn posts(reading: &Reading) -> Option<f64> {
    Some(reading.posts_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Row, ServerRecord};

    fn record() -> Record {
        let server = |name: &str, version: Option<&str>| ServerRecord {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            ..ServerRecord::default()
        };
        let row = |peer, cost, streaming_cost| Row {
            readings: vec![Reading {
                cost: Some(cost),
                streaming_cost,
                ..Reading::default()
            }],
            ..Row::of(peer)
        };
        Record {
            servers: vec![
                server("floor", Some("1")),
                server("hark", Some("1")),
                server("nchan", Some("1")),
                server("ntfy", None),
            ],
            loads: vec![LoadRecord {
                id: "fan-out-1000".to_owned(),
                rows: vec![
                    row("floor", 4.0, None),
                    row("hark", 6.0, Some(5.0)),
                    Row::of("nchan"),
                ],
                ..LoadRecord::default()
            }],
            ..Record::default()
        }
    }

    #[test]
    fn cpu_is_drawn_as_a_ratio_to_the_floor() {
        let pictures = all(&record());
        let [picture] = &pictures[..] else {
            panic!("only what was measured is drawn");
        };
        let bars = picture.chart.panels[0].bars.iter();
        let drawn: Vec<_> = bars
            .map(|bar| bar.spread.as_ref().map(|spread| spread.median))
            .collect();
        assert_eq!(drawn[..3], [Ok(1.0), Ok(1.25), Ok(1.5)]);
        assert_eq!(drawn[3], Err(&"no figure".to_owned()));
        assert_eq!(drawn[4], Err(&"not installed".to_owned()));
    }

    #[test]
    fn without_the_floor_there_is_no_ratio() {
        let mut record = record();
        record.loads[0].rows.remove(0);
        assert!(all(&record).is_empty());
    }
}
