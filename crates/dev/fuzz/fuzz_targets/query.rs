//! The query and the `Last-Event-ID` of a stream: any text and any bytes, divided by a line feed.
//!
//! It must not panic. What is accepted keeps to the limits, and a `Last-Event-ID` is never a
//! reason to refuse: a browser would give up for good.
#![no_main]

use std::collections::HashSet;

use broadcast_sse::query::{From, QueryLimits, parse};
use libfuzzer_sys::fuzz_target;

const LIMITS: QueryLimits = QueryLimits {
    channels: 3,
    newest: 1_000,
};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let Some(Ok(query)) = parts.next().map(std::str::from_utf8) else {
        return;
    };
    let last_event_id = parts.next();
    let without = parse(query, None, LIMITS);
    let with = parse(query, last_event_id, LIMITS);
    assert_eq!(with.is_ok(), without.is_ok());
    let (Ok(with), Ok(without)) = (with, without) else {
        return;
    };
    assert_eq!(with.channels, without.channels);
    let distinct: HashSet<_> = with.channels.iter().collect();
    assert!((1..=LIMITS.channels).contains(&distinct.len()));
    assert_eq!(distinct.len(), with.channels.len());
    if let From::Newest(count) = with.from {
        assert!(count <= LIMITS.newest);
    }
    // Only the header can be unreadable: in the URL it is a 400.
    assert_ne!(without.from, From::Unreadable);
});
