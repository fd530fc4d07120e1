use std::path::{Path, PathBuf};

/// A file of the folder `deploy`.
#[must_use]
pub fn deploy(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3);
    root.expect("the workspace's root")
        .join("deploy")
        .join(path)
}

/// The text of a file of the folder `deploy`, with some of it replaced.
///
/// # Panics
/// When something to be replaced is not there.
#[must_use]
pub fn example(path: &str, replace: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(deploy(path)).expect("an example");
    for (from, to) in replace {
        assert!(text.contains(from), "{path} has no {from:?} any more");
        text = text.replace(from, to);
    }
    text
}
