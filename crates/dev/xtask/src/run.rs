use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::tally::Tally;

/// How a step ended, and the tests that its output tells of.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) tally: Tally,
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its end, passing its output on line by line while counting
/// the tests in it. A command that cannot be started has failed.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    println!("$ {}", words.join(" "));
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            println!("cannot start {}: {error}", words[0]);
            return Outcome::default();
        }
    };
    let mut tally = Tally::default();
    let mut output = BufReader::new(child.stdout.take().expect("it was piped just now"));
    let mut line = Vec::new();
    // An error reading a pipe is its end.
    while output
        .read_until(b'\n', &mut line)
        .is_ok_and(|length| length > 0)
    {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        tally.count_line(&text);
        line.clear();
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    Outcome { succeeded, tally }
}
