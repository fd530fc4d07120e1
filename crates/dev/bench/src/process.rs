//! What the kernel tells about processes: time on a processor and resident memory.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use procfs::process::{Process, Schedstat, all_processes};
use procfs::{CurrentSI as _, FromRead as _, KernelStats, ProcResult};
use serde::{Deserialize, Serialize};

/// `USER_HZ`, the unit of /proc/PID/stat: 100 on every architecture that Hark is built for.
const TICK: Duration = Duration::from_millis(10);

/// Above this part of the time at work or waiting for the processor, a thread has no time left.
const SATURATED: f64 = 0.9;

/// Processor time and memory of a process at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// User and system, known to 10 ms.
    ticks: Duration,
    /// Each thread's time, to the nanosecond.
    threads: BTreeMap<i32, Duration>,
    /// Bytes.
    pub(crate) resident: u64,
}

impl Sample {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        Self::read(pid).map_err(io::Error::other)
    }

    fn read(pid: i32) -> ProcResult<Self> {
        let process = Process::new(pid)?;
        let stat = process.stat()?;
        // A thread may end while the list is read.
        let threads = process.tasks()?.flatten().filter_map(|thread| {
            let time = thread.schedstat().ok()?.sum_exec_runtime;
            Some((thread.tid, Duration::from_nanos(time)))
        });
        Ok(Self {
            ticks: ticks(stat.utime + stat.stime),
            threads: threads.collect(),
            resident: process.status()?.vmrss.unwrap_or(0) * 1024,
        })
    }

    /// The processor time since an earlier sample.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let ticks = self.ticks.saturating_sub(before.ticks);
        let exact: Duration = self
            .threads
            .iter()
            .map(|(thread, time)| {
                let before = before.threads.get(thread).copied().unwrap_or_default();
                time.saturating_sub(before)
            })
            .sum();
        // Threads that ended between the samples are only in the ticks.
        if ticks > exact + 2 * TICK {
            ticks
        } else {
            exact
        }
    }
}

/// The pids of a process's children.
pub(crate) fn children(parent: u32) -> io::Result<Vec<u32>> {
    let all = all_processes().map_err(io::Error::other)?;
    // Processes come and go while the list is read.
    let stats = all.flatten().filter_map(|process| process.stat().ok());
    let children = stats.filter(|stat| u32::try_from(stat.ppid) == Ok(parent));
    Ok(children.map(|stat| stat.pid.unsigned_abs()).collect())
}

/// The time that all processors of the machine have worked, known to 10 ms: all but idle and waiting
/// for a disk, and without guests, which are in user time already (proc_stat(5)).
pub(crate) fn machine_time() -> io::Result<Duration> {
    let all = KernelStats::current().map_err(io::Error::other)?.total;
    let others = [all.irq, all.softirq, all.steal].into_iter().flatten();
    Ok(ticks(
        all.user + all.nice + all.system + others.sum::<u64>(),
    ))
}

/// What part of a time this thread worked, and what part it waited for a processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Share {
    pub(crate) working: f64,
    pub(crate) waiting: f64,
}

impl Share {
    /// Whether the load generator was (or may have been) the bottleneck.
    pub(crate) fn is_saturated(self) -> bool {
        self.working + self.waiting > SATURATED
    }
}

/// A moment from which on this thread's own time is measured.
pub(crate) struct OwnTime {
    begin: Instant,
    working: Duration,
    waiting: Duration,
}

impl OwnTime {
    pub(crate) fn read() -> io::Result<Self> {
        let read = Schedstat::from_file("/proc/thread-self/schedstat");
        let own = read.map_err(io::Error::other)?;
        Ok(Self {
            begin: Instant::now(),
            working: Duration::from_nanos(own.sum_exec_runtime),
            waiting: Duration::from_nanos(own.run_delay),
        })
    }

    pub(crate) fn elapsed(&self) -> io::Result<Share> {
        let now = Self::read()?;
        let all = now.begin.duration_since(self.begin).as_secs_f64();
        let part = |now: Duration, before: Duration| (now - before).as_secs_f64() / all;
        Ok(Share {
            working: part(now.working, self.working),
            waiting: part(now.waiting, self.waiting),
        })
    }
}

/// So many [`TICK`]s.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(10 * count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_can_be_sampled() {
        let sample = Sample::of(std::process::id()).unwrap();
        assert!(sample.resident > 0);
        assert!(!sample.threads.is_empty());
        assert!(Sample::of(u32::MAX).is_err());
    }

    #[test]
    fn the_machine_has_worked() {
        let before = machine_time().unwrap();
        assert!(before > Duration::ZERO && machine_time().unwrap() >= before);
    }

    #[test]
    fn time_of_threads_that_ended_is_not_forgotten() {
        let at = |ticks: u32, threads: &[(i32, u64)]| Sample {
            ticks: TICK * ticks,
            threads: threads
                .iter()
                .map(|(thread, time)| (*thread, Duration::from_millis(*time)))
                .collect(),
            ..Sample::default()
        };
        let before = at(1, &[(1, 7), (2, 5)]);
        let exact = at(3, &[(1, 17), (2, 6), (3, 4)]).since(&before);
        assert_eq!(exact, Duration::from_millis(15));
        let ended = at(11, &[(1, 17)]).since(&before);
        assert_eq!(ended, 10 * TICK);
    }
}
