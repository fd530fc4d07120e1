use std::io;
use std::time::Duration;

use super::{Reading, Scenario, samples, spent};
use crate::load::{Load, Pace};
use crate::peers::Running;

/// Posts a second in the first trial, which finds out what an event costs. The next one corrects
/// it: busy servers do more at a time.
const TRIAL: f64 = 300.0;
const TRIALS: usize = 3;
const TRIAL_WINDOW: Duration = Duration::from_secs(1);
/// The load grows from one trial to the next by no more than this.
const GROWTH: f64 = 4.0;
/// How busy the processors are to be: near saturation, but without a backlog, which would make
/// events cheaper as several are then written at once.
const BUSY: f64 = 0.7;
/// Each stream is read so seldom: the load generator shares a processor with the server.
const SELDOM: Duration = Duration::from_millis(200);
/// An event that takes longer has waited in the server as well.
const BACKLOG: Duration = Duration::from_millis(400);

impl Scenario {
    /// Finds out what an event costs the server that streams, and then paces the posts so that
    /// it has work for this part of so many processors.
    pub(super) fn keep_busy(
        &self,
        running: &Running,
        mut load: Load<'_>,
        processors: u32,
    ) -> io::Result<Reading> {
        let opened = self.open(&mut load)?;
        load.add_publishers(self.publishers)?;
        load.warm_up()?;
        load.read_every(SELDOM);
        let mut rate = TRIAL;
        for _ in 0..TRIALS {
            let before = samples(running)?;
            load.publish_for(Pace::PerSecond(rate), TRIAL_WINDOW)?;
            load.finish(Pace::PerSecond(rate))?;
            let spent = spent(&before, &samples(running)?);
            let share = spent.last().copied().unwrap_or_default() / TRIAL_WINDOW.as_secs_f64();
            rate *= (BUSY * f64::from(processors) / share.max(f64::EPSILON)).min(GROWTH);
        }
        let reading = self.watch(running, &mut load, Pace::PerSecond(rate))?;
        let p99 = reading.latency.map_or(0.0, |[_, p99, _]| p99);
        if p99 > BACKLOG.as_secs_f64() * 1e3 {
            return Err(io::Error::other(format!(
                "a backlog of {p99:.0} ms: several events were written at once, so their cost says nothing"
            )));
        }
        Ok(reading.with_opening(&opened, 0.0, self.streams))
    }
}
