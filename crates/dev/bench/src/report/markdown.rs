use std::fmt::Write as _;

/// Writes a Markdown table whose columns are as wide as their widest cell.
pub(crate) fn aligned(lines: &[Vec<String>], text: &mut String) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for (index, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(text, "| {} |", cells.join(" | ")).expect("a String takes all");
        if index == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            writeln!(text, "| {} |", rules.join(" | ")).expect("a String takes all");
        }
    }
}

/// The text between two markers, each on a line of its own, replaced.
///
/// # Errors
/// Names the marker that is not there.
pub(super) fn between(text: &str, begin: &str, end: &str, new: &str) -> Result<String, String> {
    let missing = |marker: &str| format!("there is no line `{marker}`");
    let (before, rest) = text.split_once(begin).ok_or_else(|| missing(begin))?;
    let (_, after) = rest.split_once(end).ok_or_else(|| missing(end))?;
    Ok(format!("{before}{begin}\n{new}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [["a", "µ"], ["long", "b"]].map(|line| line.map(str::to_owned).to_vec());
        let mut text = String::new();
        aligned(&lines, &mut text);
        assert_eq!(text, "| a    | µ |\n| ---- | - |\n| long | b |\n");
    }

    #[test]
    fn only_what_lies_between_the_markers_is_replaced() {
        let text = "one\n<!-- a -->\nold\n<!-- /a -->\ntwo\n";
        let new = between(text, "<!-- a -->", "<!-- /a -->", "new").unwrap();
        assert_eq!(new, "one\n<!-- a -->\nnew\n<!-- /a -->\ntwo\n");
        assert_eq!(
            between(&new, "<!-- a -->", "<!-- /a -->", "new").unwrap(),
            new
        );
        assert!(between(text, "<!-- b -->", "<!-- /b -->", "").is_err());
    }
}
