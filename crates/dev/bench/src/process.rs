//! What the kernel tells about processes: time on a processor and resident memory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

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
    threads: BTreeMap<u32, Duration>,
    /// Bytes.
    pub(crate) resident: u64,
}

impl Sample {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let ticks = ticks(&stat).ok_or_else(|| unreadable("stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = resident(&status).ok_or_else(|| unreadable("status"))?;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            let thread = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            // A thread may end while the list is read.
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            if let (Some(thread), Some((time, _))) = (thread, schedule(&text)) {
                threads.insert(thread, time);
            }
        }
        Ok(Self {
            ticks,
            threads,
            resident,
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
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes come and go while the list is read.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of = fields(&stat).nth(1).and_then(|field| field.parse().ok());
        if of == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// The time that all processors of the machine have worked, known to 10 ms.
pub(crate) fn machine_time() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    worked(&stat).ok_or_else(|| unreadable("stat"))
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
        let text = fs::read_to_string("/proc/thread-self/schedstat")?;
        let (working, waiting) = schedule(&text).ok_or_else(|| unreadable("schedstat"))?;
        Ok(Self {
            begin: Instant::now(),
            working,
            waiting,
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

/// All but idle and waiting for a disk (proc_stat(5): fields 4 and 5), and without guests, which
/// are in user time already.
fn worked(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields = line.split_ascii_whitespace().take(8).enumerate();
    let working = fields.filter(|(index, _)| !matches!(index, 3 | 4));
    let ticks: u64 = working
        .map(|(_, field)| field.parse::<u64>().ok())
        .sum::<Option<u64>>()?;
    Some(Duration::from_millis(
        ticks * u64::try_from(TICK.as_millis()).ok()?,
    ))
}

fn unreadable(file: &str) -> io::Error {
    io::Error::other(format!("/proc: {file} is not as expected"))
}

/// The fields of a stat behind the name, which may hold blanks and brackets.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    let behind = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    behind.split_ascii_whitespace()
}

/// User and system time (proc_pid_stat(5): fields 14 and 15).
fn ticks(stat: &str) -> Option<Duration> {
    let mut fields = fields(stat).skip(11).map(|field| field.parse::<u32>().ok());
    Some(TICK * (fields.next()?? + fields.next()??))
}

/// Time on a processor, and waiting for one.
fn schedule(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut fields = schedstat
        .split_ascii_whitespace()
        .map(|field| field.parse().ok().map(Duration::from_nanos));
    Some((fields.next()??, fields.next()??))
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 5 7 7 0 -1 4194304 88 0 1 0 23 4 0 0 20 0 1 0 612406";
        assert_eq!(ticks(stat), Some(27 * TICK));
        assert_eq!(fields(stat).nth(1), Some("5"));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn the_own_process_can_be_sampled() {
        let sample = Sample::of(std::process::id()).unwrap();
        assert!(sample.resident > 0);
        assert!(!sample.threads.is_empty());
        assert!(Sample::of(u32::MAX).is_err());
    }

    #[test]
    fn idle_time_is_not_work() {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(worked(stat), Some(63 * TICK));
        assert_eq!(worked("cpu0 1\n"), None);
        let before = machine_time().unwrap();
        assert!(machine_time().unwrap() >= before);
    }

    #[test]
    fn time_of_threads_that_ended_is_not_forgotten() {
        let at = |ticks: u32, threads: &[(u32, u64)]| Sample {
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
