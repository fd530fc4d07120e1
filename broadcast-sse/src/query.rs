//! Parses the request for a stream: `?c=…&c=…&since=…&last=…` and `Last-Event-ID`.

use std::collections::HashSet;

use chat_model::{ChannelId, Cursor};

use crate::hub::Start;

/// The channels of a stream and where it begins in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamQuery {
    /// The channels in the order of the query, each once.
    pub channels: Vec<ChannelId>,
    /// Where the stream begins.
    pub from: From,
}

/// Where a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// With what is posted from now on.
    Live,
    /// With this many of the newest events of each channel.
    Newest(u64),
    /// After a cursor; live in the channels that it does not mention.
    Cursor(Cursor),
    /// The `Last-Event-ID` is not a cursor of Hark.
    Unreadable,
}

/// Limits of a query.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// The most channels in one stream.
    pub channels: usize,
    /// The largest `last`.
    pub newest: u64,
}

/// Why a query can never succeed. Each of these is answered with 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No `c`.
    #[error("name at least one channel: ?c=<uuid>")]
    NoChannel,
    /// A `c` that is not a UUID.
    #[error("c={value}: {source}")]
    NotAChannel {
        /// What was given.
        value: String,
        /// Why it is not a channel.
        source: chat_model::NotAChannel,
    },
    /// More channels than a stream may have.
    #[error("a stream has at most {most} channels; open several streams for more")]
    TooManyChannels {
        /// How many it may have.
        most: usize,
    },
    /// A `since` that is not a cursor.
    #[error("since: {0}")]
    Since(chat_model::CursorError),
    /// A `last` that is not a number within the limits.
    #[error("last: must be a number from 0 to {most}")]
    Last {
        /// The largest.
        most: u64,
    },
}

/// How many of the newest events a stream begins with if its cursor cannot be read.
const AFTER_UNREADABLE: u64 = 100;

/// Reads the query of a stream.
///
/// A browser repeats the URL when it reconnects, so `Last-Event-ID` takes precedence over `since`, and
/// `since` over `last`. An empty `Last-Event-ID` counts as none: browsers that have seen no id send it.
/// Parameters with other names are ignored, because people add some to defeat caches.
///
/// # Errors
/// See [`QueryError`]. A `Last-Event-ID` that cannot be read is not an error: a browser would give up for
/// good.
pub fn parse(
    query: &str,
    last_event_id: Option<&[u8]>,
    limits: QueryLimits,
) -> Result<StreamQuery, QueryError> {
    let mut channels = Vec::new();
    let mut seen = HashSet::new();
    let (mut since, mut last) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "c" => {
                let channel = channel(&value)?;
                if seen.insert(channel) {
                    channels.push(channel);
                }
                if channels.len() > limits.channels {
                    return Err(QueryError::TooManyChannels {
                        most: limits.channels,
                    });
                }
            }
            "since" => since = Some(Cursor::parse(&value).map_err(QueryError::Since)?),
            "last" => {
                let number = value.parse().ok().filter(|number| *number <= limits.newest);
                last = Some(number.ok_or(QueryError::Last {
                    most: limits.newest,
                })?);
            }
            _ => {}
        }
    }
    if channels.is_empty() {
        return Err(QueryError::NoChannel);
    }
    let from = resumed(last_event_id)
        .or(since.map(From::Cursor))
        .or(last.map(From::Newest))
        .unwrap_or(From::Live);
    Ok(StreamQuery { channels, from })
}

fn resumed(last_event_id: Option<&[u8]>) -> Option<From> {
    let id = last_event_id.filter(|id| !id.is_empty())?;
    let cursor = std::str::from_utf8(id)
        .ok()
        .and_then(|id| Cursor::parse(id).ok());
    Some(cursor.map_or(From::Unreadable, From::Cursor))
}

fn channel(text: &str) -> Result<ChannelId, QueryError> {
    text.parse().map_err(|source| QueryError::NotAChannel {
        value: text.chars().take(64).collect(),
        source,
    })
}

impl StreamQuery {
    /// The query for a stream of one channel, which is named in the path.
    pub(crate) fn of_channel(name: &str, last_event_id: Option<&[u8]>) -> Result<Self, QueryError> {
        let from = resumed(last_event_id).unwrap_or(From::Live);
        Ok(Self {
            channels: vec![channel(name)?],
            from,
        })
    }

    /// Where the stream begins in each of its channels.
    pub(crate) fn starts(&self) -> Vec<(ChannelId, Start)> {
        let start = |channel| match &self.from {
            From::Live => Start::Live,
            From::Newest(count) => Start::Newest(*count),
            From::Cursor(cursor) => cursor.position(channel).map_or(Start::Live, Start::After),
            From::Unreadable => Start::Unreadable(AFTER_UNREADABLE),
        };
        self.channels
            .iter()
            .map(|&channel| (channel, start(channel)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat_model::{Epoch, Position};

    const A: &str = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0";
    const LIMITS: QueryLimits = QueryLimits {
        channels: 2,
        newest: 1_000,
    };

    fn parse_all(query: &str, id: Option<&str>) -> Result<StreamQuery, QueryError> {
        parse(query, id.map(str::as_bytes), LIMITS)
    }

    fn cursor(seq: u64) -> String {
        Cursor::encode([(A.parse().unwrap(), Position::new(Epoch::ZERO, seq))])
    }

    #[test]
    fn the_header_beats_since_which_beats_last() {
        let query = format!("c={A}&since={}&last=5&_=cache", cursor(1));
        let from = |id: Option<&str>| parse_all(&query, id).unwrap().from;
        assert_eq!(from(None), From::Cursor(Cursor::parse(&cursor(1)).unwrap()));
        assert_eq!(
            from(Some("")),
            From::Cursor(Cursor::parse(&cursor(1)).unwrap())
        );
        assert_eq!(
            from(Some(&cursor(2))),
            From::Cursor(Cursor::parse(&cursor(2)).unwrap())
        );
        assert_eq!(from(Some("17")), From::Unreadable);
        assert_eq!(
            parse_all(&format!("c={A}&last=5"), None).unwrap().from,
            From::Newest(5)
        );
    }

    #[test]
    fn what_will_not_get_better_is_refused() {
        let other = |n: u8| format!("c=00000000-0000-4000-8000-0000000000{n:02}");
        assert_eq!(parse_all("", None), Err(QueryError::NoChannel));
        assert!(matches!(
            parse_all("c=lobby", None),
            Err(QueryError::NotAChannel { .. })
        ));
        let three = [other(1), other(2), other(3)].join("&");
        assert_eq!(
            parse_all(&three, None),
            Err(QueryError::TooManyChannels { most: 2 })
        );
        let since = parse_all(&format!("c={A}&since=17"), None);
        assert!(matches!(since, Err(QueryError::Since(_))));
        for last in ["-1", "1001", "x", ""] {
            let last = parse_all(&format!("c={A}&last={last}"), None);
            assert_eq!(last, Err(QueryError::Last { most: 1_000 }));
        }
    }

    #[test]
    fn a_channel_named_twice_is_one() {
        let query = format!("c={A}&c={}", A.to_uppercase());
        assert_eq!(parse_all(&query, None).unwrap().channels.len(), 1);
    }
}
