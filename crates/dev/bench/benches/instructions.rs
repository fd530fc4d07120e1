//! The instructions of what every message passes through: `cargo xtask bench --instructions`.

mod functions;

use std::path::Path;
use std::process::ExitCode;

use functions::{COMMITS, FUNCTIONS};

fn main() -> ExitCode {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    bench::count_instructions(&[FUNCTIONS, COMMITS].concat(), &kept)
}
