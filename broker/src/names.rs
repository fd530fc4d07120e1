//! Topics and filters that MQTT allows and rumqttd's router survives.

use rumqttd::protocol::valid_filter;

use crate::wire::Refusal;

/// Bytes of a topic, a filter or a client id. rumqttd keeps topics and filters until it ends.
pub(crate) const MAX_NAME: usize = 1024;

/// Levels of a topic or a filter, each of which the router compares.
const MAX_LEVELS: usize = 16;

fn is_deep(name: &[u8]) -> bool {
    name.iter().filter(|byte| **byte == b'/').count() >= MAX_LEVELS
}

/// A topic that can be published to (MQTT 3.1.1 §4.7), and that the router survives.
pub(crate) fn check_topic(topic: &[u8]) -> Result<(), Refusal> {
    let first = topic.first().ok_or("an empty topic")?;
    if !first.is_ascii() {
        return Err("a topic that begins with a character beyond ASCII");
    }
    if topic.len() > MAX_NAME {
        return Err("a topic of more than 1 KiB");
    }
    if is_deep(topic) {
        return Err("a topic of more than 16 levels");
    }
    if topic.iter().any(|byte| matches!(byte, b'+' | b'#' | 0)) {
        return Err("a topic with a wildcard or NUL");
    }
    std::str::from_utf8(topic)
        .map(drop)
        .map_err(|_| "a topic that is not UTF-8")
}

/// A filter that can be subscribed to (MQTT 3.1.1 §4.7), and that the router survives.
pub(crate) fn check_filter(filter: &str) -> Result<(), Refusal> {
    if filter.starts_with("$share") {
        return Err("a shared subscription");
    }
    if filter.starts_with('$') {
        return Err("a filter that begins with $");
    }
    if filter.len() > MAX_NAME {
        return Err("a filter of more than 1 KiB");
    }
    if is_deep(filter.as_bytes()) {
        return Err("a filter of more than 16 levels");
    }
    if !valid_filter(filter) || filter.contains('\0') {
        return Err("a filter that MQTT does not allow");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_harm_are_refused() {
        let long = "a".repeat(MAX_NAME + 1);
        let deep = "a/".repeat(MAX_LEVELS);
        for bad in ["", "\u{e9}t\u{e9}", "chat/+", "#", "a\0b", &long, &deep] {
            assert!(check_topic(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(check_topic(b"a\xff").is_err());
        check_filter(&deep).unwrap_err();
        for good in ["chat/x", "/", "caf\u{e9}", "$SYS/x", "a b", &deep[2..]] {
            assert_eq!(check_topic(good.as_bytes()), Ok(()), "{good:?}");
        }
    }
}
