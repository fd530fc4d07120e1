use std::time::Duration;

/// Buckets for each doubling: 64, so that a value is known to 1.6 %.
const PRECISION: u32 = 6;
const PER_DOUBLING: usize = 1 << PRECISION;
/// Values from 2^40 ns (18 minutes) on count as that.
const LARGEST: u64 = 1 << 40;
const BUCKETS: usize = (40 - PRECISION as usize + 2) * PER_DOUBLING;

/// Durations counted in buckets that grow with them, so that its size is fixed
/// and any quantile is known to 1.6 %.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds.min(LARGEST))] += 1;
        self.total += 1;
    }

    /// The value that this part (0 to 1) of the recorded ones does not exceed;
    /// `None` when nothing was recorded.
    pub(crate) fn quantile(&self, part: f64) -> Option<Duration> {
        // Below 2^53, and a part of it, so nothing is cut off that matters.
        let rank = ((self.total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_nanos(upper_bound(index)));
            }
        }
        None
    }
}

fn bucket(value: u64) -> usize {
    let shift = value.checked_ilog2().unwrap_or(0).saturating_sub(PRECISION);
    // Below 2 * PER_DOUBLING by the choice of the shift.
    shift as usize * PER_DOUBLING + (value >> shift) as usize
}

fn upper_bound(index: usize) -> u64 {
    let shift = (index / PER_DOUBLING).saturating_sub(1);
    let significant = (index - shift * PER_DOUBLING) as u64;
    ((significant + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_a_sixty_fourth_wide() {
        for value in (0..200).chain([1_000, 12_345, 1 << 20, (1 << 33) + 7, LARGEST]) {
            let upper = upper_bound(bucket(value));
            assert!(upper >= value, "{value} counts as {upper}");
            assert!(upper - value <= value / 64, "{value} counts as {upper}");
        }
    }

    #[test]
    fn quantiles_follow_the_ranks() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=100).for_each(|value| histogram.record(value));
        let nanoseconds = |part| histogram.quantile(part).unwrap().as_nanos();
        assert_eq!(nanoseconds(0.5), 50);
        assert_eq!(nanoseconds(0.0), 1);
        assert!((99..=100).contains(&nanoseconds(0.99)));
        histogram.record(u64::MAX);
        assert!(histogram.quantile(1.0).unwrap() >= Duration::from_nanos(LARGEST));
    }
}
