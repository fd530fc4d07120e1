use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

/// RFC 3339 with milliseconds, as JavaScript's `Date.prototype.toISOString` writes it.
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Milliseconds since 1970 as `2026-11-21T09:00:00.123Z`.
///
/// Times after the year 9999 are written as its end.
pub fn format_timestamp(milliseconds: u64) -> String {
    /// 9999-12-31T23:59:59.999Z.
    const LAST: u64 = 253_402_300_799_999;
    let nanoseconds = i128::from(milliseconds.min(LAST)) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .expect("within the years that the type can hold")
        .format(FORMAT)
        .expect("every component is part of a date and time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_javascript_does() {
        assert_eq!(format_timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            format_timestamp(1_795_251_600_123),
            "2026-11-21T09:00:00.123Z"
        );
        assert_eq!(format_timestamp(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
