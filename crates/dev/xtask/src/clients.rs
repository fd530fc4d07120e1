use std::path::Path;
use std::process::Command;

use crate::is_newer;
use crate::run::{self, Outcome};

/// Installs the SSE clients of `crates/dev/system-tests/clients`, unless they are there already.
pub(crate) fn install(root: &Path) -> Outcome {
    let folder = root.join("crates/dev/system-tests/clients");
    let installs = [python, node, go].map(|install| install(&folder));
    Outcome {
        succeeded: installs.iter().all(|succeeded| *succeeded),
        ..Outcome::default()
    }
}

fn python(clients: &Path) -> bool {
    let folder = clients.join("python");
    let done = folder.join("venv/done");
    if is_newer(&done, &folder.join("requirements.txt")) {
        return true;
    }
    let install = "python3 -m venv venv && venv/bin/pip install --quiet --requirement requirements.txt && touch venv/done";
    in_folder(&folder, "sh", &["-c", install])
}

fn node(clients: &Path) -> bool {
    let folder = clients.join("node");
    let done = folder.join("node_modules/.package-lock.json");
    if is_newer(&done, &folder.join("package-lock.json")) {
        return true;
    }
    in_folder(&folder, "npm", &["ci", "--no-audit", "--no-fund"])
}

/// Go keeps what it has built by itself.
fn go(clients: &Path) -> bool {
    in_folder(&clients.join("go"), "go", &["build", "-o", "bin/", "./..."])
}

fn in_folder(folder: &Path, program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    run::run(command.args(arguments).current_dir(folder)).succeeded
}
