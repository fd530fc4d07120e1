use super::Bound::{AtLeast, AtMost};
use super::{MOSQUITTO, Target, median, most, quotient, streaming, streaming_of, to_peer};
use crate::report::{FLOOR, HARK};
use crate::scenario::Reading;
use crate::spread::Spread;

const CENTRIFUGO: &str = "centrifugo";
const NCHAN: &str = "nchan";

pub(super) const TARGETS: &[Target] = &[
    Target {
        load: "idle",
        figure: "KiB of memory for each idle stream",
        bound: AtMost(2.5),
        reached: |record| median(record, "idle", HARK, settled),
    },
    Target {
        load: "fan-out-1000",
        figure: "CPU of streaming an event ÷ floor",
        bound: AtMost(1.3),
        reached: |record| streaming(record, "fan-out-1000"),
    },
    Target {
        load: "fan-out-10000",
        figure: "CPU of streaming an event ÷ floor",
        bound: AtMost(1.3),
        reached: |record| streaming(record, "fan-out-10000"),
    },
    Target {
        load: "fan-out-channels",
        figure: "CPU of streaming an event ÷ floor",
        bound: AtMost(1.35),
        reached: |record| streaming(record, "fan-out-channels"),
    },
    Target {
        load: "saturated-1000",
        figure: "events/s ÷ Centrifugo",
        bound: AtLeast(1.5),
        reached: |record| to_peer(record, "saturated-1000", CENTRIFUGO, events),
    },
    Target {
        load: "saturated-1000",
        figure: "events/s ÷ floor",
        bound: AtLeast(3.0),
        reached: |record| to_peer(record, "saturated-1000", FLOOR, events),
    },
    Target {
        load: "saturated-1000",
        figure: "p99 delay ÷ Centrifugo",
        bound: AtMost(0.5),
        reached: |record| to_peer(record, "saturated-1000", CENTRIFUGO, delay_p99),
    },
    Target {
        load: "saturated-10000",
        figure: "events/s ÷ Centrifugo",
        bound: AtLeast(1.5),
        reached: |record| to_peer(record, "saturated-10000", CENTRIFUGO, events),
    },
    Target {
        load: "saturated-10000",
        figure: "events/s ÷ floor",
        bound: AtLeast(3.0),
        reached: |record| to_peer(record, "saturated-10000", FLOOR, events),
    },
    Target {
        load: "saturated-10000",
        figure: "p99 delay ÷ Centrifugo",
        bound: AtMost(0.5),
        reached: |record| to_peer(record, "saturated-10000", CENTRIFUGO, delay_p99),
    },
    Target {
        load: "connect",
        figure: "time until all have begun ÷ Nchan, at least",
        bound: AtMost(1.2),
        reached: |record| to_peer(record, "connect", NCHAN, opening),
    },
    Target {
        load: "connect",
        figure: "CPU to open one ÷ Nchan",
        bound: AtMost(1.2),
        reached: |record| to_peer(record, "connect", NCHAN, opening_cost),
    },
    Target {
        load: "storm",
        figure: "refused connections and SYNs sent again, at most",
        bound: AtMost(0.0),
        reached: |record| {
            most(record, "storm", |reading| {
                let connecting = reading.connecting?;
                Some((connecting.refused + connecting.syn_retransmits) as f64)
            })
        },
    },
    Target {
        load: "resume",
        figure: "time until all have begun ÷ Nchan, at least",
        bound: AtMost(1.2),
        reached: |record| to_peer(record, "resume", NCHAN, opening),
    },
    Target {
        load: "resume",
        figure: "CPU to open one ÷ Nchan",
        bound: AtMost(1.2),
        reached: |record| to_peer(record, "resume", NCHAN, opening_cost),
    },
    Target {
        load: "resume",
        figure: "reads of history for each channel, at most",
        bound: AtMost(1.0),
        reached: |record| most(record, "resume", |reading| reading.history_reads),
    },
    Target {
        load: "resume-cold",
        figure: "reads of history for each channel, at most",
        bound: AtMost(1.0),
        reached: |record| most(record, "resume-cold", |reading| reading.history_reads),
    },
    Target {
        load: "post-100",
        figure: "posts/s, on disk ÷ Centrifugo, in memory",
        bound: AtLeast(0.7),
        reached: |record| to_peer(record, "post-100", CENTRIFUGO, posts),
    },
    Target {
        load: "post-100",
        figure: "posts/s ÷ Mercure with Bolt",
        bound: AtLeast(9.0),
        reached: |record| to_peer(record, "post-100", "mercure-bolt", posts),
    },
    Target {
        load: "post-100",
        figure: "posts/s ÷ ntfy with SQLite",
        bound: AtLeast(6.0),
        reached: |record| to_peer(record, "post-100", "ntfy-sqlite", posts),
    },
    Target {
        load: "post-100",
        figure: "p99 of a post's answer, ms",
        bound: AtMost(15.0),
        reached: |record| median(record, "post-100", HARK, answer_p99),
    },
    Target {
        load: "post-10000",
        figure: "posts/s ÷ those to 100 channels",
        bound: AtLeast(0.7),
        reached: |record| {
            let few = median(record, "post-100", HARK, posts);
            quotient(median(record, "post-10000", HARK, posts), few)
        },
    },
    Target {
        load: "delay",
        figure: "p50 from post to listener − fsync, ms",
        bound: AtMost(2.0),
        reached: |record| {
            let median = median(record, "delay", HARK, |reading| Some(reading.latency?[0]))?;
            Some(median - Spread::of(record.fsync.iter().copied())?.median)
        },
    },
    Target {
        load: "delay",
        figure: "p99 from post to listener, ms",
        bound: AtMost(15.0),
        reached: |record| median(record, "delay", HARK, delay_p99),
    },
    Target {
        load: "growth-10000",
        figure: "mosquitto: CPU of streaming an event ÷ floor, ÷ the same over 10 channels",
        bound: AtMost(1.3),
        reached: |record| {
            let few = streaming_of(record, "growth-10", MOSQUITTO);
            quotient(streaming_of(record, "growth-10000", MOSQUITTO), few)
        },
    },
    Target {
        load: "channels",
        figure: "KiB of broadcast-sse for each channel with one idle listener",
        bound: AtMost(4.0),
        reached: |record| {
            median(record, "channels", HARK, |reading| {
                Some(reading.streaming_resident?[1])
            })
        },
    },
    Target {
        load: "churn",
        figure: "memory after all have left ÷ before",
        bound: AtMost(1.05),
        reached: |record| {
            median(record, "churn", HARK, |reading| {
                let churn = reading.churn?;
                Some(churn.after / churn.before)
            })
        },
    },
    Target {
        load: "cores-2",
        figure: "events/s that two processors have time for ÷ one: 2 × CPU of an event on one ÷ on two",
        bound: AtLeast(1.6),
        reached: |record| {
            let cost = |load| median(record, load, HARK, |reading| reading.streaming_cost);
            Some(2.0 * quotient(cost("cores-1"), cost("cores-2"))?)
        },
    },
];

fn settled(reading: &Reading) -> Option<f64> {
    Some(reading.resident?[1])
}

fn events(reading: &Reading) -> Option<f64> {
    Some(reading.events_per_second)
}

fn posts(reading: &Reading) -> Option<f64> {
    Some(reading.posts_per_second)
}

fn opening(reading: &Reading) -> Option<f64> {
    Some(reading.opening)
}

fn opening_cost(reading: &Reading) -> Option<f64> {
    Some(reading.opening_cost)
}

fn delay_p99(reading: &Reading) -> Option<f64> {
    Some(reading.latency?[1])
}

fn answer_p99(reading: &Reading) -> Option<f64> {
    Some(reading.post?[1])
}
