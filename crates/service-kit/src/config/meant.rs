//! Guesses which key was meant by one that does not exist.

use strsim::damerau_levenshtein;
use toml::{Table, Value};

/// More suggestions would not help.
const MOST: usize = 3;

/// The known keys that `unknown` may stand for, best first and at most [`MOST`]: those that differ only
/// in the tables around them, or else those with a similar spelling.
pub(super) fn keys(unknown: &str, known: &Table) -> Vec<String> {
    let mut all = Vec::new();
    collect(known, "", &mut all);
    let moved = |key: &&String| is_within(unknown, key) || is_within(key, unknown);
    let mut found: Vec<String> = all.iter().filter(moved).cloned().collect();
    if found.is_empty() {
        let near = all
            .into_iter()
            .map(|key| (damerau_levenshtein(unknown, &key), key));
        let mut near: Vec<_> = near.filter(|(far, key)| *far <= bearable(key)).collect();
        near.sort();
        let nearest = near.first().map_or(0, |(far, _)| *far);
        near.retain(|(far, _)| *far == nearest);
        found = near.into_iter().map(|(_, key)| key).collect();
    } else {
        // The key that has most in common comes first.
        found.sort_by_key(|key| std::cmp::Reverse(key.len()));
    }
    found.truncate(MOST);
    found
}

/// Whether `outer` is `inner` inside further tables.
fn is_within(inner: &str, outer: &str) -> bool {
    outer
        .strip_suffix(inner)
        .is_some_and(|tables| tables.ends_with('.'))
}

/// How many characters of a key may be wrong: a third of its last part, and at least one.
fn bearable(key: &str) -> usize {
    let last = key.rsplit('.').next().unwrap_or(key);
    (last.len() / 3).max(1)
}

/// Collects all keys, including those of tables.
fn collect(table: &Table, path: &str, all: &mut Vec<String>) {
    for (name, value) in table {
        let key = super::joined(path, name);
        if let Value::Table(inner) = value {
            collect(inner, &key, all);
        }
        all.push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(unknown: &str) -> Vec<String> {
        let known = r#"
            data = ""
            [access]
            allowed_origins = []
            [chat_service]
            listen = ""
            [chat_service.limits]
            message = ""
            [broadcast_sse]
            listen = ""
            [broadcast_sse.hub]
            ping = ""
        "#;
        keys(unknown, &known.parse().unwrap())
    }

    #[test]
    fn a_misspelt_key_is_recognised() {
        assert_eq!(meant("acess.allowed_origins"), ["access.allowed_origins"]);
        assert_eq!(meant("access.allow_origins"), ["access.allowed_origins"]);
        assert_eq!(meant("chat_service.limit"), ["chat_service.limits"]);
        assert_eq!(meant("dta"), ["data"]);
        assert_eq!(meant("colour"), [""; 0]);
    }

    #[test]
    fn a_key_in_the_wrong_table_is_recognised() {
        assert_eq!(meant("limits.message"), ["chat_service.limits.message"]);
        assert_eq!(
            meant("chat_service.access.allowed_origins"),
            ["access.allowed_origins"]
        );
        assert_eq!(meant("chat_service.access"), ["access"]);
        assert_eq!(
            meant("listen"),
            ["broadcast_sse.listen", "chat_service.listen"]
        );
    }
}
