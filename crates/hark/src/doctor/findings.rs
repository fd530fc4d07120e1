use std::io::Write as _;

use service_command::Failure;

/// Prints what was found, at once, and counts it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    failed: usize,
    warned: usize,
}

impl Findings {
    pub(super) fn ok(&mut self, what: &str) {
        say(&format!("ok    {what}"));
    }

    /// Something to know, neither good nor bad.
    pub(super) fn note(&mut self, what: &str) {
        say(&format!("note  {what}"));
    }

    /// Something that works, but worse than it could.
    pub(super) fn warn(&mut self, what: &str, advice: &str) {
        self.warned += 1;
        say(&format!("WARN  {what}\n      → {advice}"));
    }

    /// Something that does not work.
    pub(super) fn fail(&mut self, what: &str, advice: &str) {
        self.failed += 1;
        say(&format!("FAIL  {what}\n      → {advice}"));
    }

    /// Success, unless something did not work.
    pub(super) fn conclude(&self) -> Result<(), Failure> {
        match (self.failed, self.warned) {
            (0, 0) => say("all is well"),
            (0, warned) => say(&format!("it works; warnings: {warned}")),
            (failed, _) => {
                return Err(Failure::failed(format!(
                    "things that do not work: {failed}"
                )));
            }
        }
        Ok(())
    }
}

fn say(line: &str) {
    // If nobody reads on, the exit status still tells.
    drop(writeln!(std::io::stdout(), "{line}"));
}
