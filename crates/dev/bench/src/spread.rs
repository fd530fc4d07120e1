/// Median, minimum and maximum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            median,
            least,
            most,
        })
    }

    pub(crate) fn divided_by(self, divisor: f64) -> Self {
        Self {
            median: self.median / divisor,
            least: self.least / divisor,
            most: self.most / divisor,
        }
    }

    pub(crate) fn show(self) -> String {
        let Self {
            median,
            least,
            most,
        } = self;
        format!("{} ({}–{})", number(median), number(least), number(most))
    }
}

/// Three significant digits, or four; small counts without a fraction.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size < 1e4 && size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e5 => format!("{:.0} k", value / 1e3),
        size if size >= 1e4 => format!("{:.1} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_stand_between_minimum_and_maximum() {
        let spread = Spread::of([3.0, 1.0, 20_000.0].into_iter()).unwrap();
        assert_eq!(spread.show(), "3 (1–20.0 k)");
        assert_eq!(spread.divided_by(2.0).show(), "1.50 (0.50–10.0 k)");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(2.346), "2.35");
        assert_eq!(number(123_456.0), "123 k");
        assert_eq!(number(1_234_567.0), "1.23 M");
        let even = Spread::of([1.0, 2.0].into_iter()).unwrap();
        assert_eq!(even.median.to_bits(), 1.5_f64.to_bits());
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
