//! Explains what is wrong with a JSON text, in words for the person who wrote it.

use serde_json::Error;
use serde_json::error::Category;

/// How many characters of the faulty text are shown.
const SHOWN: usize = 20;

/// Says what is wrong with `json`. If it is not valid JSON: where the fault is, what was expected and
/// what was found. If it is valid JSON but has the wrong content: what is wrong with the value.
///
/// `error` must be serde_json's error for this same text.
///
/// ```
/// let json = "{'text': 'hello'}";
/// let error = serde_json::from_str::<serde_json::Value>(json).unwrap_err();
/// let said = chat_model::explain_json(json, &error);
/// assert_eq!(said, "line 1, column 2: expected a name in double quotes, found 'text'");
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
        "EOF while parsing a value" => return "it ends where a value is expected".into(),
        "recursion limit exceeded" => return "it is nested too deeply".into(),
        "expected value" | "expected ident" => {
            "expected a value (text in double quotes, a number, true, false, null, {…} or […])"
        }
        "expected `:`" => "expected a `:`",
        "expected `,` or `]`" => "expected a `,` or the closing `]`",
        "expected `,` or `}`" => "expected a `,` or the closing `}`",
        "key must be a string" | "expected `\"`" => "expected a name in double quotes",
        "trailing comma" => "expected something after the comma",
        "trailing characters" => "expected the end",
        "control character (\\u0000-\\u001F) found while parsing a string" => {
            "a string contains a line break or another control character; write it as \\n or \\u000a"
        }
        "invalid escape" => {
            "a string has a `\\` that does not begin an escape (write a backslash itself as `\\\\`)"
        }
        "invalid number" => "this is not how JSON writes a number",
        "number out of range" => "the number is too large",
        "invalid unicode code point"
        | "lone leading surrogate in hex escape"
        | "unexpected end of hex escape" => "a string has a `\\u` that is not a character",
        other => other,
    };
    let place = place(json, error.line(), error.column());
    let (line, column) = line_and_column(json, place);
    let there = match shown(&json[place..]) {
        found if expected.starts_with("expected") => match found {
            "" => ", found none".to_owned(),
            found => format!(", found {found}"),
        },
        _ => String::new(),
    };
    format!("line {line}, column {column}: {expected}{there}")
}

/// serde's sentence about a wrong value, in plainer words.
fn explain_value(said: &str) -> String {
    if let Some((name, known)) = said
        .strip_prefix("unknown field ")
        .and_then(|rest| rest.split_once(", expected "))
    {
        return format!("there is no field {name}; expected {known}");
    }
    if said.starts_with("duplicate field ") {
        return "it is given twice".to_owned();
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
        return format!("it must be {expected}, not {found}");
    }
    said.to_owned()
}

/// serde_json's sentence without the position at its end.
fn without_position(error: &Error) -> String {
    let said = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    said.strip_suffix(&position).unwrap_or(&said).to_owned()
}

/// The byte at which the fault begins. serde_json may name a byte within a word; this is the start of
/// that word.
fn place(json: &str, line: usize, column: usize) -> usize {
    let lines = json.split_inclusive('\n');
    let before: usize = lines.take(line.saturating_sub(1)).map(str::len).sum();
    // Column 0 is the line break before the line.
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

/// Line and column as editors count them: from 1, in characters.
fn line_and_column(json: &str, place: usize) -> (usize, usize) {
    let before = &json[..place];
    let line = before.matches('\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |end| end + 1);
    (line, before[begin..].chars().count() + 1)
}

/// The start of `rest`, enough to recognise it: a word, or one character.
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
            "expected a value (text in double quotes, a number, true, false, null, {…} or […])";
        for (json, said) in [
            ("hello", format!("line 1, column 1: {value}, found hello")),
            // serde_json: "expected ident at line 1 column 2".
            ("text", format!("line 1, column 1: {value}, found text")),
            (
                "{\"text\":hi}",
                format!("line 1, column 9: {value}, found hi"),
            ),
            (
                "{\"ä\":\n grüße}",
                format!("line 2, column 2: {value}, found grüße"),
            ),
            (
                "{text:1}",
                "line 1, column 2: expected a name in double quotes, found text".into(),
            ),
            (
                "{\"a\" 1}",
                "line 1, column 6: expected a `:`, found 1".into(),
            ),
            (
                "{\"a\":1 \"b\":2}",
                "line 1, column 8: expected a `,` or the closing `}`, found \"b".into(),
            ),
            (
                "{\"a\":1}}",
                "line 1, column 8: expected the end, found }".into(),
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
            broken_line.starts_with("line 1, column 8: a string contains a line break"),
            "{broken_line}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind() {
        for (said, plain) in [
            (
                "unknown field `a`, expected one of `b`, `c`, `d`",
                "there is no field `a`; expected one of `b`, `c`, `d`",
            ),
            ("duplicate field `a`", "it is given twice"),
            (
                "invalid type: integer `1`, expected a string",
                "it must be a string, not integer `1`",
            ),
            (
                "invalid type: null, expected a sequence",
                "it must be a list, not null",
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
