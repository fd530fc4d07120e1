//! Limits how much strangers can make a program write into its log.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// Limits how many lines of one kind are written per minute. Use it for every line at `info` or above
/// that somebody else can cause at will: make one for each kind, as a `static` or as a field of what
/// writes the lines, and ask it before each line.
///
/// ```
/// use service_kit::log_limit::LogLimit;
///
/// static REFUSED: LogLimit = LogLimit::per_minute(10);
///
/// if let Some(left_out) = REFUSED.line() {
///     tracing::warn!(left_out, "a packet was refused");
/// }
/// ```
#[derive(Debug)]
pub struct LogLimit {
    lines: u32,
    minute: Mutex<Minute>,
}

#[derive(Debug)]
struct Minute {
    begun: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl LogLimit {
    /// Allows this many lines a minute, counted from the first of them.
    pub const fn per_minute(lines: u32) -> Self {
        Self {
            lines,
            minute: Mutex::new(Minute {
                begun: None,
                written: 0,
                left_out: 0,
            }),
        }
    }

    /// `Some` if a line may be written now, with the number of lines that were left out since the
    /// previous one, to log as a field. `None` if the line must be left out.
    pub fn line(&self) -> Option<u64> {
        let now = Instant::now();
        let mut minute = self.minute.lock();
        if minute.begun.is_none_or(|begun| now - begun >= MINUTE) {
            minute.begun = Some(now);
            minute.written = 0;
        }
        if minute.written >= self.lines {
            minute.left_out += 1;
            return None;
        }
        minute.written += 1;
        Some(std::mem::take(&mut minute.left_out))
    }
}

/// Decides when to log whether something works. A change is logged at once, but never sooner than
/// half a minute after the previous one. Something that changes many times a second thus gets two
/// lines a minute, and a state that lasts is always logged.
///
/// ```
/// use service_kit::log_limit::Working;
///
/// let disk = Working::default();
/// if disk.tells(false) {
///     tracing::error!("the disk is full");
/// }
/// ```
#[derive(Debug)]
pub struct Working {
    told: AtomicBool,
    last: Mutex<Option<Instant>>,
}

impl Default for Working {
    /// Starts in the state "works".
    fn default() -> Self {
        Self {
            told: AtomicBool::new(true),
            last: Mutex::default(),
        }
    }
}

impl Working {
    /// Takes the current state; returns whether to log it now. Call it whenever the state is known.
    pub fn tells(&self, works: bool) -> bool {
        if self.told.load(Relaxed) == works {
            return false;
        }
        let now = Instant::now();
        let mut last = self.last.lock();
        if last.is_some_and(|last| now - last < MINUTE / 2) {
            return false;
        }
        *last = Some(now);
        self.told.swap(works, Relaxed) != works
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_changes_all_the_time_is_told_twice_a_minute_and_at_the_end() {
        let disk = Working::default();
        assert!(!disk.tells(true));
        let flood = || (0..1_001).filter(|turn| disk.tells(turn % 2 == 1)).count();
        assert_eq!(flood(), 1, "it fails");
        tokio::time::advance(MINUTE / 2).await;
        assert_eq!(flood(), 1, "it works");
        // Now it fails for good.
        assert!(!disk.tells(false));
        tokio::time::advance(MINUTE / 2).await;
        assert!(disk.tells(false));
        assert!(!disk.tells(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_few_lines_a_minute_that_say_how_many_there_would_have_been() {
        let limit = LogLimit::per_minute(2);
        let flood = || (0..1_000).filter_map(|_| limit.line()).collect::<Vec<_>>();
        assert_eq!(flood(), [0, 0]);
        tokio::time::advance(MINUTE).await;
        assert_eq!(flood(), [998, 0]);
        tokio::time::advance(MINUTE / 2).await;
        assert_eq!(limit.line(), None);
    }
}
