use std::ops::Range;

use time::{Date, Month, OffsetDateTime, Time};

/// The length of [`format_timestamp`]'s text.
const LENGTH: usize = "2026-11-21T09:00:00.123Z".len();

/// Milliseconds since 1970 as `2026-11-21T09:00:00.123Z`: RFC 3339, as JavaScript's
/// `Date.prototype.toISOString` writes it.
///
/// Times after the year 9999 are written as the end of that year.
pub fn format_timestamp(milliseconds: u64) -> String {
    String::from_utf8_lossy(&timestamp(milliseconds)).into_owned()
}

/// [`format_timestamp`] without an allocation, for the line of every event.
pub(crate) fn timestamp(milliseconds: u64) -> [u8; LENGTH] {
    /// 9999-12-31T23:59:59.999Z.
    const LAST: u64 = 253_402_300_799_999;
    let milliseconds = milliseconds.min(LAST);
    let seconds = (milliseconds / 1_000).cast_signed();
    let time = OffsetDateTime::from_unix_timestamp(seconds)
        .expect("within the years that the type can hold");
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |end: usize, digits: usize, mut number: u64| {
        for place in text[end - digits..end].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(4, 4, time.year().unsigned_abs().into());
    put(7, 2, u8::from(time.month()).into());
    put(10, 2, time.day().into());
    put(13, 2, time.hour().into());
    put(16, 2, time.minute().into());
    put(19, 2, time.second().into());
    put(23, 3, milliseconds % 1_000);
    text
}

/// Reads what [`format_timestamp`] writes, and nothing else.
pub(crate) fn parse_timestamp(text: &str) -> Option<u64> {
    let text: &[u8; LENGTH] = text.as_bytes().try_into().ok()?;
    let number = |range: Range<usize>| {
        text[range].iter().try_fold(0_u16, |number, byte| {
            byte.is_ascii_digit()
                .then(|| number * 10 + u16::from(byte - b'0'))
        })
    };
    let small = |start: usize| u8::try_from(number(start..start + 2)?).ok();
    let month = Month::try_from(small(5)?).ok()?;
    let date = Date::from_calendar_date(number(0..4)?.into(), month, small(8)?).ok()?;
    let time = Time::from_hms_milli(small(11)?, small(14)?, small(17)?, number(20..23)?).ok()?;
    let marks = [
        text[4], text[7], text[10], text[13], text[16], text[19], text[23],
    ];
    let seconds = u64::try_from(date.with_time(time).assume_utc().unix_timestamp()).ok()?;
    (marks == *b"--T::.Z").then(|| seconds * 1_000 + u64::from(time.millisecond()))
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

    #[test]
    fn what_was_written_is_read() {
        for at in [0, 951_782_399_999, 1_795_251_600_123, 253_402_300_799_999] {
            assert_eq!(parse_timestamp(&format_timestamp(at)), Some(at));
        }
        for other in [
            "",
            "2026-11-21T09:00:00Z",
            "2026-11-21T09:00:00.123+",
            "2026-13-21T09:00:00.123Z",
            "2026-02-30T09:00:00.123Z",
            "2026-11-21T24:00:00.123Z",
            "2026-11-21 09:00:00.123Z",
            "1969-12-31T23:59:59.999Z",
            "+026-11-21T09:00:00.123Z",
            "2026-11-21T09:00:00.\u{661}3Z",
        ] {
            assert_eq!(parse_timestamp(other), None, "{other}");
        }
    }
}
