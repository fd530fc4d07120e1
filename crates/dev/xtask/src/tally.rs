/// How many tests passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// Adds what a line of a test runner's output says, if it is a closing line
    /// of `cargo test` (`test result: ok. 3 passed; 0 failed; …`) or of
    /// `node --test` (`# pass 3`, or `ℹ pass 3` in its other form).
    pub(crate) fn count_line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("test result: ") {
            // What is no number is no count; a step's end is judged by its exit status.
            for part in rest.split(['.', ';']) {
                match part.trim().split_once(' ') {
                    Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                    Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else if let Some(rest) = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ ")) {
            match rest.split_once(' ') {
                Some(("pass", number)) => self.passed += number.parse().unwrap_or(0),
                Some(("fail" | "cancelled", number)) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_summed_and_others_are_not() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 16 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.17s\n",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "# tests 5",
            "# pass 3",
            "# fail 1",
            "ℹ pass 4",
            "ℹ cancelled 1",
            "test one ... ok",
            "they said: 9 passed; 9 failed",
        ] {
            tally.count_line(line);
        }
        assert_eq!(
            tally,
            Tally {
                passed: 25,
                failed: 3
            }
        );
    }
}
