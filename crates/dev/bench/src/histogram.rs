/// Values from 2^40 ns (18 minutes) on count as that.
const LARGEST: u64 = 1 << 40;

/// Durations, of which any quantile is known to 1 %.
#[derive(Debug, Clone)]
pub(crate) struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Self {
        let empty = hdrhistogram::Histogram::new_with_max(LARGEST, 2);
        Self(empty.expect("two digits of 2^40 are within its bounds"))
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// The milliseconds that this part (0 to 1) of the recorded ones does not exceed;
    /// `None` when nothing was recorded.
    pub(crate) fn quantile(&self, part: f64) -> Option<f64> {
        let recorded = !self.0.is_empty();
        recorded.then(|| self.0.value_at_quantile(part) as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_milliseconds_and_nothing_is_too_long() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=100).for_each(|value| histogram.record(value * 1_000_000));
        let median = histogram.quantile(0.5).unwrap();
        assert!((50.0..50.5).contains(&median), "{median}");
        histogram.record(u64::MAX);
        assert!(histogram.quantile(1.0).unwrap() >= LARGEST as f64 / 1e6);
    }
}
