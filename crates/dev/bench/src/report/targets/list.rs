use super::Bound::{AtLeast, AtMost};
use super::{MOSQUITTO, Target, median, most, quotient, streaming_of, to_peer};
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
        reached: |record, load| median(record, load, HARK, settled),
    },
    streaming_to_floor("fan-out-1000", 1.3),
    streaming_to_floor("fan-out-10000", 1.3),
    streaming_to_floor("fan-out-channels", 1.35),
    events_to_centrifugo("saturated-1000"),
    events_to_floor("saturated-1000"),
    delay_to_centrifugo("saturated-1000"),
    events_to_centrifugo("saturated-10000"),
    events_to_floor("saturated-10000"),
    delay_to_centrifugo("saturated-10000"),
    opening_to_nchan("connect"),
    opening_cost_to_nchan("connect"),
    Target {
        load: "storm",
        figure: "refused connections and SYNs sent again, at most",
        bound: AtMost(0.0),
        reached: |record, load| {
            most(record, load, |reading| {
                let connecting = reading.connecting?;
                Some((connecting.refused + connecting.syn_retransmits) as f64)
            })
        },
    },
    opening_to_nchan("resume"),
    opening_cost_to_nchan("resume"),
    history_reads("resume"),
    history_reads("resume-cold"),
    Target {
        load: "post-100",
        figure: "posts/s, on disk ÷ Centrifugo, in memory",
        bound: AtLeast(0.7),
        reached: |record, load| to_peer(record, load, CENTRIFUGO, posts),
    },
    Target {
        load: "post-100",
        figure: "posts/s ÷ Mercure with Bolt",
        bound: AtLeast(9.0),
        reached: |record, load| to_peer(record, load, "mercure-bolt", posts),
    },
    Target {
        load: "post-100",
        figure: "posts/s ÷ ntfy with SQLite",
        bound: AtLeast(6.0),
        reached: |record, load| to_peer(record, load, "ntfy-sqlite", posts),
    },
    Target {
        load: "post-100",
        figure: "p99 of a post's answer, ms",
        bound: AtMost(15.0),
        reached: |record, load| median(record, load, HARK, answer_p99),
    },
    Target {
        load: "post-10000",
        figure: "posts/s ÷ those to 100 channels",
        bound: AtLeast(0.7),
        reached: |record, load| {
            let few = median(record, "post-100", HARK, posts);
            quotient(median(record, load, HARK, posts), few)
        },
    },
    Target {
        load: "delay",
        figure: "p50 from post to listener − fsync, ms",
        bound: AtMost(2.0),
        reached: |record, load| {
            let median = median(record, load, HARK, |reading| Some(reading.latency?[0]))?;
            Some(median - Spread::of(record.fsync.iter().copied())?.median)
        },
    },
    Target {
        load: "delay",
        figure: "p99 from post to listener, ms",
        bound: AtMost(15.0),
        reached: |record, load| median(record, load, HARK, delay_p99),
    },
    Target {
        load: "growth-10000",
        figure: "mosquitto: CPU of streaming an event ÷ floor, ÷ the same over 10 channels",
        bound: AtMost(1.3),
        reached: |record, load| {
            let few = streaming_of(record, "growth-10", MOSQUITTO);
            quotient(streaming_of(record, load, MOSQUITTO), few)
        },
    },
    Target {
        load: "channels",
        figure: "KiB of broadcast-sse for each channel with one idle listener",
        bound: AtMost(4.0),
        reached: |record, load| {
            median(record, load, HARK, |reading| {
                Some(reading.streaming_resident?[1])
            })
        },
    },
    Target {
        load: "churn",
        figure: "memory after all have left ÷ before",
        bound: AtMost(1.05),
        reached: |record, load| {
            median(record, load, HARK, |reading| {
                let churn = reading.churn?;
                Some(churn.after / churn.before)
            })
        },
    },
    Target {
        load: "cores-2",
        figure: "events/s that two processors have time for ÷ one: 2 × CPU of an event on one ÷ on two",
        bound: AtLeast(1.6),
        reached: |record, load| {
            let cost = |load| median(record, load, HARK, |reading| reading.streaming_cost);
            Some(2.0 * quotient(cost("cores-1"), cost(load))?)
        },
    },
];

const fn streaming_to_floor(load: &'static str, most: f64) -> Target {
    Target {
        load,
        figure: "CPU of streaming an event ÷ floor",
        bound: AtMost(most),
        reached: |record, load| streaming_of(record, load, HARK),
    }
}

const fn events_to_centrifugo(load: &'static str) -> Target {
    Target {
        load,
        figure: "events/s ÷ Centrifugo",
        bound: AtLeast(1.5),
        reached: |record, load| to_peer(record, load, CENTRIFUGO, events),
    }
}

const fn events_to_floor(load: &'static str) -> Target {
    Target {
        load,
        figure: "events/s ÷ floor",
        bound: AtLeast(3.0),
        reached: |record, load| to_peer(record, load, FLOOR, events),
    }
}

const fn delay_to_centrifugo(load: &'static str) -> Target {
    Target {
        load,
        figure: "p99 delay ÷ Centrifugo",
        bound: AtMost(0.5),
        reached: |record, load| to_peer(record, load, CENTRIFUGO, delay_p99),
    }
}

const fn opening_to_nchan(load: &'static str) -> Target {
    Target {
        load,
        figure: "time until all have begun ÷ Nchan, at least",
        bound: AtMost(1.2),
        reached: |record, load| to_peer(record, load, NCHAN, opening),
    }
}

const fn opening_cost_to_nchan(load: &'static str) -> Target {
    Target {
        load,
        figure: "CPU to open one ÷ Nchan",
        bound: AtMost(1.2),
        reached: |record, load| to_peer(record, load, NCHAN, opening_cost),
    }
}

const fn history_reads(load: &'static str) -> Target {
    Target {
        load,
        figure: "reads of history for each channel, at most",
        bound: AtMost(1.0),
        reached: |record, load| most(record, load, |reading| reading.history_reads),
    }
}

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
