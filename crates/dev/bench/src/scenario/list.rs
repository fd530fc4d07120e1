use std::time::Duration;

use super::{Kind, Scenario};
use crate::load::{Begin, Pace};

/// Those that keep what is published in memory, if at all.
const ALL: &[&str] = &[
    "floor",
    "hark",
    "axum",
    "nchan",
    "centrifugo",
    "mercure",
    "ntfy",
];
/// Of those the ones that are near enough to compete.
const FAST: &[&str] = &["floor", "hark", "nchan", "centrifugo"];
const POSTS: &[&str] = &[
    "floor",
    "hark",
    "nchan",
    "centrifugo",
    "mercure",
    "mercure-bolt",
    "ntfy-sqlite",
];
const RESUMING: &[&str] = &["hark", "nchan", "centrifugo"];
const BROKERS: &[&str] = &["floor", "hark", "hark-mosquitto"];
const HARK: &[&str] = &["hark"];

/// The loads of the side-by-side run.
pub(crate) fn all(quick: bool) -> Vec<Scenario> {
    let window = Duration::from_millis(if quick { 1_500 } else { 3_000 });
    let idle = if quick { 5_000 } else { 15_000 };
    let list = [
        generator(),
        streams(idle),
        fan_out(),
        saturated(),
        posts(),
        growth(),
        cores(),
    ];
    let mut all = list.concat();
    for scenario in &mut all {
        scenario.window = scenario.window.max(window);
    }
    all
}

fn scenario(
    id: &'static str,
    name: &str,
    kind: Kind,
    servers: &'static [&'static str],
) -> Scenario {
    Scenario {
        id,
        name: name.to_owned(),
        kind,
        streams: 0,
        channels: 1,
        publishers: 0,
        payload: 100,
        window: Duration::ZERO,
        begin: Begin::Live,
        servers,
        once: false,
        quick: false,
    }
}

/// The load generator itself.
fn generator() -> Vec<Scenario> {
    vec![Scenario {
        streams: crate::feed::STREAMS,
        quick: true,
        ..scenario(
            "generator",
            "events that the load generator can read and check",
            Kind::Listen,
            &["feed"],
        )
    }]
}

/// Memory of streams, and how they open.
fn streams(idle: usize) -> Vec<Scenario> {
    let resume = |id, name, cold, servers| Scenario {
        streams: 10_000,
        channels: 10,
        publishers: 16,
        ..scenario(id, name, Kind::Resume { behind: 100, cold }, servers)
    };
    vec![
        Scenario {
            streams: idle,
            channels: 100,
            quick: true,
            ..scenario("idle", &format!("{idle} idle streams"), Kind::Idle, ALL)
        },
        Scenario {
            streams: 10_000,
            channels: 10_000,
            publishers: 16,
            ..scenario(
                "channels",
                "10,000 channels with one event and one idle stream each",
                Kind::Idle,
                HARK,
            )
        },
        Scenario {
            streams: 10_000,
            channels: 100,
            quick: true,
            ..scenario(
                "connect",
                "10,000 new streams, at most 500 connecting at a time",
                Kind::Connect(Pace::ClosedLoop),
                ALL,
            )
        },
        Scenario {
            streams: 10_000,
            channels: 100,
            ..scenario(
                "storm",
                "10,000 new streams at 20,000 a second",
                Kind::Connect(Pace::PerSecond(20_000.0)),
                FAST,
            )
        },
        resume(
            "resume",
            "10,000 streams of 10 channels that resume 100 events behind",
            false,
            RESUMING,
        ),
        resume(
            "resume-cold",
            "10,000 streams of 10 channels that resume 100 events behind at a node that has none of them in memory",
            true,
            HARK,
        ),
        Scenario {
            channels: 100,
            once: true,
            ..scenario(
                "churn",
                "1,000,000 streams that come and go",
                Kind::Churn(1_000_000),
                HARK,
            )
        },
    ]
}

/// Fan-out below saturation, and how long it takes.
fn fan_out() -> Vec<Scenario> {
    let flow = |id, name, [channels, streams, publishers]: [usize; 3], rate, servers| Scenario {
        streams,
        channels,
        publishers,
        ..scenario(id, name, Kind::Flow(Pace::PerSecond(rate)), servers)
    };
    vec![
        Scenario {
            quick: true,
            ..flow(
                "fan-out-1000",
                "1 channel × 1,000 streams, 20 posts/s",
                [1, 1_000, 4],
                20.0,
                ALL,
            )
        },
        flow(
            "fan-out-10000",
            "1 channel × 10,000 streams, 2 posts/s",
            [1, 10_000, 4],
            2.0,
            ALL,
        ),
        Scenario {
            quick: true,
            ..flow(
                "fan-out-channels",
                "1,000 channels × 10 streams, 1,000 posts/s",
                [1_000, 10_000, 16],
                1_000.0,
                ALL,
            )
        },
        flow(
            "delay",
            "1 channel × 100 streams, 500 posts/s",
            [1, 100, 16],
            500.0,
            &["floor", "hark", "hark-mosquitto", "nchan", "centrifugo"],
        ),
    ]
}

/// As much as a server takes.
fn saturated() -> Vec<Scenario> {
    let flow = |id, name, streams| Scenario {
        streams,
        publishers: 16,
        ..scenario(id, name, Kind::Flow(Pace::ClosedLoop), FAST)
    };
    vec![
        Scenario {
            quick: true,
            ..flow(
                "saturated-1000",
                "1 channel × 1,000 streams, saturated by 16 publishers",
                1_000,
            )
        },
        flow(
            "saturated-10000",
            "1 channel × 10,000 streams, saturated by 16 publishers",
            10_000,
        ),
    ]
}

fn posts() -> Vec<Scenario> {
    let flow = |id, name, channels, servers| Scenario {
        streams: 1,
        channels,
        publishers: 64,
        ..scenario(id, name, Kind::Flow(Pace::ClosedLoop), servers)
    };
    vec![
        Scenario {
            quick: true,
            ..flow(
                "post-100",
                "posts by 64 connections to 100 channels, 1 stream",
                100,
                POSTS,
            )
        },
        flow(
            "post-10000",
            "posts by 64 connections to 10,000 channels, 1 stream",
            10_000,
            FAST,
        ),
    ]
}

/// The same posts to few channels and to many: in the window each has one at least.
fn growth() -> Vec<Scenario> {
    let flow = |id, name, channels| Scenario {
        streams: channels,
        channels,
        publishers: 16,
        window: Duration::from_secs(5),
        ..scenario(id, name, Kind::Flow(Pace::PerSecond(2_000.0)), BROKERS)
    };
    vec![
        flow("growth-10", "10 channels × 1 stream, 2,000 posts/s", 10),
        flow(
            "growth-10000",
            "10,000 channels × 1 stream, 2,000 posts/s",
            10_000,
        ),
    ]
}

/// broadcast-sse alone on one processor and on two, everything else on that of the load.
fn cores() -> Vec<Scenario> {
    let on = |id, name, count| Scenario {
        streams: 10_000,
        channels: 100,
        publishers: 64,
        window: Duration::from_secs(4),
        ..scenario(id, name, Kind::Processors(count), HARK)
    };
    vec![
        on(
            "cores-1",
            "100 channels × 100 streams, paced to keep 70 % of one processor busy with streaming",
            1,
        ),
        on(
            "cores-2",
            "100 channels × 100 streams, paced to keep 70 % of two processors busy with streaming",
            2,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::peers;

    #[test]
    fn every_load_has_an_id_of_its_own_and_servers_that_exist() {
        let known: BTreeSet<_> = peers::all().iter().map(|peer| peer.name()).collect();
        for quick in [true, false] {
            let all = all(quick);
            let ids: BTreeSet<_> = all.iter().map(|scenario| scenario.id).collect();
            assert_eq!(ids.len(), all.len());
            for scenario in all {
                assert!(!scenario.servers.is_empty(), "{}", scenario.id);
                let mut servers = scenario.servers.iter();
                assert!(servers.all(|name| known.contains(name)), "{}", scenario.id);
            }
        }
    }
}
