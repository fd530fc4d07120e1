use memchr::memmem;

/// Unreserved in URLs and plain in JSON, so that it travels unchanged in every dialect.
const MARK: &[u8] = b"~hark-bench~";
const PUBLISHER: usize = 4;
const CHANNEL: usize = 6;
const SEQ: usize = 8;
const SENT: usize = 16;
/// The smallest payload that carries a stamp.
pub(crate) const SIZE: usize = MARK.len() + PUBLISHER + CHANNEL + SEQ + SENT;

/// What every payload carries, so that its listener can check it without
/// believing anything that the server adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The publishing connection.
    pub(crate) publisher: u16,
    pub(crate) channel: u32,
    /// Dense for each publisher and channel, from 0.
    pub(crate) seq: u32,
    /// Nanoseconds since the load generator's start.
    pub(crate) sent: u64,
}

impl Stamp {
    /// A payload of `size` bytes, or of [`SIZE`] if that is more.
    pub(crate) fn payload(self, size: usize) -> Vec<u8> {
        let Self {
            publisher,
            channel,
            seq,
            sent,
        } = self;
        let mut payload = MARK.to_vec();
        payload.extend(format!("{publisher:04x}{channel:06x}{seq:08x}{sent:016x}").bytes());
        payload.resize(size.max(SIZE), b'x');
        payload
    }

    /// The first stamp in these bytes.
    fn read(bytes: &[u8]) -> Option<Self> {
        let fields = bytes.get(MARK.len()..SIZE)?;
        let (publisher, fields) = fields.split_at(PUBLISHER);
        let (channel, fields) = fields.split_at(CHANNEL);
        let (seq, sent) = fields.split_at(SEQ);
        Some(Self {
            publisher: u16::try_from(hexadecimal(publisher)?).ok()?,
            channel: u32::try_from(hexadecimal(channel)?).ok()?,
            seq: u32::try_from(hexadecimal(seq)?).ok()?,
            sent: hexadecimal(sent)?,
        })
    }
}

/// Finds stamps in what servers send; some put several messages into one event.
#[derive(Debug)]
pub(crate) struct Finder(memmem::Finder<'static>);

impl Finder {
    pub(crate) fn new() -> Self {
        Self(memmem::Finder::new(MARK))
    }

    pub(crate) fn stamps<'a>(&'a self, data: &'a [u8]) -> impl Iterator<Item = Stamp> + 'a {
        let places = self.0.find_iter(data);
        places.filter_map(|place| Stamp::read(&data[place..]))
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_in_what_surrounds_them() {
        let stamp = Stamp {
            publisher: 15,
            channel: 99_999,
            seq: u32::MAX,
            sent: u64::MAX - 1,
        };
        let payload = String::from_utf8(stamp.payload(100)).unwrap();
        assert_eq!(payload.len(), 100);
        assert_eq!(stamp.payload(0).len(), SIZE);
        let data = format!("[{{\"text\":\"{payload}\"}},\"~hark-bench~no\",\"{payload}\"]");
        let finder = Finder::new();
        let found: Vec<_> = finder.stamps(data.as_bytes()).collect();
        assert_eq!(found, [stamp, stamp]);
        assert_eq!(finder.stamps(&payload.as_bytes()[..SIZE - 1]).count(), 0);
    }
}
