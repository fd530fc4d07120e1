//! What is wrong with a JSON text, in words for the person who wrote it.

use serde_json::Error;
use serde_json::error::Category;

/// Characters of what stands at a fault that are shown.
const SHOWN: usize = 20;

/// Says what is wrong with `json`: where a text that is no JSON stops being it, what stands there and
/// what was expected; or what is wrong with a value that is JSON and not what was asked for.
///
/// `error` is serde_json's for just this text.
///
/// ```
/// let json = "{'text': 'hello'}";
/// let error = serde_json::from_str::<serde_json::Value>(json).unwrap_err();
/// let said = chat_model::explain_json(json, &error);
/// assert_eq!(said, "at line 1, column 2, a name in double quotes was expected, and there is 'text'");
/// ```
pub fn explain_json(json: &str, error: &Error) -> String {
    let said = without_position(error);
    if error.classify() == Category::Data {
        return explain_value(&said);
    }
    if json.trim().is_empty() {
        return "it is empty".to_owned();
    }
    let expected = match said.as_str() {
        "EOF while parsing a string" => return "it ends within a string: a `\"` is missing".into(),
        "EOF while parsing a list" => return "it ends within a list: a `]` is missing".into(),
        "EOF while parsing an object" => {
            return "it ends within an object: a `}` is missing".into();
        }
        "EOF while parsing a value" => return "it ends where a value was expected".into(),
        "recursion limit exceeded" => return "it is nested too deeply".into(),
        "expected value" | "expected ident" => {
            "a value was expected (text in double quotes, a number, true, false, null, {…} or […])"
        }
        "expected `:`" => "a `:` was expected",
        "expected `,` or `]`" => "a `,` or the closing `]` was expected",
        "expected `,` or `}`" => "a `,` or the closing `}` was expected",
        "key must be a string" | "expected `\"`" => "a name in double quotes was expected",
        "trailing comma" => "something more was expected after the comma",
        "trailing characters" => "the end was expected",
        "control character (\\u0000-\\u001F) found while parsing a string" => {
            "a string has a line break or another control character, which is written as \\n or \\u000a"
        }
        "invalid escape" => {
            "a string has a `\\` that begins no escape (a back-slash itself is written `\\\\`)"
        }
        "invalid number" => "a number is not written as JSON writes them",
        "number out of range" => "a number is too large",
        "invalid unicode code point"
        | "lone leading surrogate in hex escape"
        | "unexpected end of hex escape" => "a string has a `\\u` that is no character",
        other => other,
    };
    let place = place(json, error.line(), error.column());
    let (line, column) = line_and_column(json, place);
    let there = match shown(&json[place..]) {
        found if expected.ends_with("expected") || expected.ends_with(')') => match found {
            "" => ", and there is none".to_owned(),
            found => format!(", and there is {found}"),
        },
        _ => String::new(),
    };
    format!("at line {line}, column {column}, {expected}{there}")
}

/// serde's sentence about a value of the wrong kind, as one would say it.
fn explain_value(said: &str) -> String {
    if let Some((name, known)) = said
        .strip_prefix("unknown field ")
        .and_then(|rest| rest.split_once(", expected "))
    {
        let known = known.strip_prefix("one of ").unwrap_or(known);
        return format!("there is no field {name}; there is {known}");
    }
    if said.starts_with("duplicate field ") {
        return "it is there twice".to_owned();
    }
    if said.starts_with("missing field ") {
        return "it is missing".to_owned();
    }
    if let Some((found, expected)) = said
        .strip_prefix("invalid type: ")
        .and_then(|rest| rest.split_once(", expected "))
    {
        let expected = match expected {
            "a sequence" => "a list",
            other if other == "a map" || other.starts_with("struct ") => "an object",
            other => other,
        };
        return format!("it must be {expected}, and there is {found}");
    }
    said.to_owned()
}

/// serde_json's sentence without the place at its end.
fn without_position(error: &Error) -> String {
    let said = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    said.strip_suffix(&position).unwrap_or(&said).to_owned()
}

/// The byte at which a fault begins: the whole word, where serde_json names a byte within it.
fn place(json: &str, line: usize, column: usize) -> usize {
    let lines = json.split_inclusive('\n');
    let before: usize = lines.take(line.saturating_sub(1)).map(str::len).sum();
    // Column 0 is the line break before.
    let mut place = (before + column).saturating_sub(1).min(json.len());
    let bytes = json.as_bytes();
    while place > 0
        && (!json.is_char_boundary(place)
            || (bytes.get(place).is_some_and(u8::is_ascii_alphanumeric)
                && bytes[place - 1].is_ascii_alphanumeric()))
    {
        place -= 1;
    }
    place
}

/// As people and editors count: from 1, in characters.
fn line_and_column(json: &str, place: usize) -> (usize, usize) {
    let before = &json[..place];
    let line = before.matches('\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |end| end + 1);
    (line, before[begin..].chars().count() + 1)
}

/// Enough of what stands somewhere to recognise it by: a word, or one character.
fn shown(rest: &str) -> &str {
    let end = rest
        .char_indices()
        .find(|(place, next)| *place > 0 && !(next.is_alphanumeric() || "'_-.".contains(*next)))
        .map_or(rest.len(), |(end, _)| end);
    let word = &rest[..end];
    let word = word
        .char_indices()
        .nth(SHOWN)
        .map_or(word, |(end, _)| &word[..end]);
    word.trim()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn explained(json: &str) -> String {
        explain_json(json, &serde_json::from_str::<Value>(json).unwrap_err())
    }

    #[test]
    fn what_stands_where_and_what_was_expected() {
        let value =
            "a value was expected (text in double quotes, a number, true, false, null, {…} or […])";
        for (json, said) in [
            (
                "hello",
                format!("at line 1, column 1, {value}, and there is hello"),
            ),
            // serde_json: "expected ident at line 1 column 2".
            (
                "text",
                format!("at line 1, column 1, {value}, and there is text"),
            ),
            (
                "{\"text\":hi}",
                format!("at line 1, column 9, {value}, and there is hi"),
            ),
            (
                "{\"ä\":\n grüße}",
                format!("at line 2, column 2, {value}, and there is grüße"),
            ),
            (
                "{text:1}",
                "at line 1, column 2, a name in double quotes was expected, and there is text"
                    .into(),
            ),
            (
                "{\"a\" 1}",
                "at line 1, column 6, a `:` was expected, and there is 1".into(),
            ),
            (
                "{\"a\":1 \"b\":2}",
                "at line 1, column 8, a `,` or the closing `}` was expected, and there is \"b"
                    .into(),
            ),
            (
                "{\"a\":1}}",
                "at line 1, column 8, the end was expected, and there is }".into(),
            ),
            (
                "{\"a\":\"b",
                "it ends within a string: a `\"` is missing".into(),
            ),
            (
                "{\"a\":1",
                "it ends within an object: a `}` is missing".into(),
            ),
            (" ", "it is empty".into()),
        ] {
            assert_eq!(explained(json), said, "{json}");
        }
        let broken_line = explained("{\"a\":\"b\nc\"}");
        assert!(
            broken_line.starts_with("at line 1, column 8, a string has a line break"),
            "{broken_line}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind() {
        for (said, plain) in [
            (
                "unknown field `a`, expected one of `b`, `c`, `d`",
                "there is no field `a`; there is `b`, `c`, `d`",
            ),
            ("duplicate field `a`", "it is there twice"),
            (
                "invalid type: integer `1`, expected a string",
                "it must be a string, and there is integer `1`",
            ),
            (
                "invalid type: null, expected a sequence",
                "it must be a list, and there is null",
            ),
        ] {
            assert_eq!(explain_value(said), plain);
        }
    }

    proptest! {
        #[test]
        fn every_fault_can_be_explained(json in "[\\PC\n\"{}\\[\\]:,a1\\\\]{0,40}") {
            if let Err(error) = serde_json::from_str::<Value>(&json) {
                prop_assert!(!explain_json(&json, &error).is_empty());
            }
        }
    }
}
