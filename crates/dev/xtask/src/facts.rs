//! `cargo xtask facts`: what the shape of the code is, counted.

mod circles;
mod modules;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{fs, io};

/// One thing counted, and what it may be at most.
struct Fact {
    what: &'static str,
    counted: usize,
    most: usize,
    /// What is too much, or where it is.
    where_it_is: Vec<String>,
}

/// A Rust file.
struct Source {
    /// From the root of the workspace.
    path: String,
    text: String,
}

/// Prints all facts. Fails if one is above what it may be.
pub(crate) fn facts(root: &Path) -> ExitCode {
    let facts = match count(root) {
        Ok(facts) => facts,
        Err(error) => {
            eprintln!("cannot count: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut good = true;
    for fact in &facts {
        let holds = fact.counted <= fact.most;
        good &= holds;
        let mark = if holds { "   " } else { "NOT" };
        println!(
            "{mark} {:>6}  (at most {:>5})  {}",
            fact.counted, fact.most, fact.what
        );
        for line in &fact.where_it_is {
            println!("                              {line}");
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn count(root: &Path) -> io::Result<Vec<Fact>> {
    let sources = sources(root)?;
    Ok(vec![
        median(&sources),
        longest(&sources),
        circles(&sources),
        way_of_one_message(root)?,
        postgres(&sources),
        store_without_http(root)?,
    ])
}

/// All Rust files that are kept.
fn sources(root: &Path) -> io::Result<Vec<Source>> {
    let listed = Command::new("git")
        .args(["ls-files", "--", "*.rs"])
        .current_dir(root)
        .output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut sources = Vec::new();
    for path in listed.lines() {
        match fs::read_to_string(root.join(path)) {
            Ok(text) => sources.push(Source {
                path: path.to_owned(),
                text,
            }),
            // Deleted, and not yet committed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sources)
}

impl Source {
    fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// Whether all of it is there for tests.
    fn is_test(&self) -> bool {
        let mut steps = self.path.split('/');
        steps.any(|step| ["tests", "tests.rs", "model", "model.rs", "fuzz"].contains(&step))
    }

    /// What is compiled besides tests: unit tests stand at the end of a file.
    fn shipped(&self) -> &str {
        let tests = self.text.find("#[cfg(test)]\nmod tests {");
        &self.text[..tests.unwrap_or(self.text.len())]
    }
}

fn median(sources: &[Source]) -> Fact {
    let mut lines: Vec<usize> = sources.iter().map(Source::lines).collect();
    lines.sort_unstable();
    Fact {
        what: "lines of a Rust file, median",
        counted: lines.get(lines.len() / 2).copied().unwrap_or(0),
        most: 130,
        where_it_is: Vec::new(),
    }
}

fn longest(sources: &[Source]) -> Fact {
    const MOST: usize = 400;
    let long = sources.iter().filter(|source| source.lines() > MOST);
    let mut long: Vec<_> = long.map(|source| (source.lines(), &source.path)).collect();
    long.sort_unstable_by(|a, b| b.cmp(a));
    Fact {
        what: "Rust files of more than 400 lines",
        counted: long.len(),
        most: 0,
        where_it_is: long
            .iter()
            .map(|(lines, path)| format!("{lines} {path}"))
            .collect(),
    }
}

fn circles(sources: &[Source]) -> Fact {
    let crates: BTreeSet<&str> = sources
        .iter()
        .filter_map(|source| Some(source.path.split_once("/src/")?.0))
        .collect();
    let mut circles = Vec::new();
    for root in crates {
        let graph = modules::graph(root, sources);
        for circle in circles::find(&graph) {
            circles.push(format!("{root}: {}", circle.join(", ")));
        }
    }
    Fact {
        what: "circles of files besides parent and child",
        counted: circles.len(),
        most: 0,
        where_it_is: circles,
    }
}

/// The files that ARCHITECTURE.md names, in order, as the way of one message.
fn way_of_one_message(root: &Path) -> io::Result<Fact> {
    let text = fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let section = text.split("## The way of one message").nth(1);
    let section = section.and_then(|rest| rest.split("\n## ").next());
    let mut files = BTreeSet::new();
    let mut missing = Vec::new();
    for name in section.unwrap_or_default().split('`').skip(1).step_by(2) {
        if name.ends_with(".rs") {
            if root.join(name).exists() {
                files.insert(name);
            } else {
                missing.push(format!("there is no {name}"));
            }
        }
    }
    let counted = if missing.is_empty() && !files.is_empty() {
        files.len()
    } else {
        usize::MAX
    };
    Ok(Fact {
        what: "files on the way of one message",
        counted,
        most: 35,
        where_it_is: missing,
    })
}

fn postgres(sources: &[Source]) -> Fact {
    let of_postgres = |source: &&Source| {
        let path = source.path.strip_prefix("crates/chat-store/src/postgres");
        path.is_some() && !source.is_test()
    };
    let lines = sources.iter().filter(of_postgres);
    Fact {
        what: "lines of the PostgreSQL store, besides tests",
        counted: lines.map(|source| source.shipped().lines().count()).sum(),
        most: 3_000,
        where_it_is: Vec::new(),
    }
}

fn store_without_http(root: &Path) -> io::Result<Fact> {
    let tree = Command::new(std::env::var_os("CARGO").map_or("cargo".into(), PathBuf::from))
        .args([
            "tree",
            "-p",
            "chat-store",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}"])
        .current_dir(root)
        .output()?;
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    let linked: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let foreign = ["axum", "hyper", "clap"].into_iter();
    let linked: Vec<String> = foreign
        .filter(|name| linked.contains(name))
        .map(str::to_owned)
        .collect();
    Ok(Fact {
        what: "of axum, hyper and clap, linked by chat-store",
        counted: linked.len(),
        most: 0,
        where_it_is: linked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Workspace;

    fn here() -> PathBuf {
        Workspace::find().root
    }

    #[test]
    fn architecture_names_every_member() {
        let root = here();
        let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
        let members = manifest.split("members = [").nth(1).unwrap();
        let members = members.split(']').next().unwrap();
        let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
        let mut count = 0;
        for member in members.split('"').skip(1).step_by(2) {
            let row = format!("| `{member}` |");
            assert!(map.contains(&row), "the code map has no row for {member}");
            count += 1;
        }
        assert!(count > 10, "{members}");
    }

    #[test]
    fn the_hub_names_no_door() {
        const DOORS: [&str; 6] = ["app", "frame", "query", "stream", "writers", "permit"];
        let sources = sources(&here()).unwrap();
        let hub = |source: &&Source| source.path.starts_with("broadcast-sse/src/hub");
        let mut files = 0;
        for source in sources.iter().filter(hub) {
            files += 1;
            for door in DOORS {
                let named = format!("crate::{door}::");
                let file = &source.path;
                assert!(!source.text.contains(&named), "{file} names {named}");
            }
        }
        assert!(files > 20, "{files}");
    }

    /// A door says who calls; whether the caller may is asked below it.
    #[test]
    fn only_ingest_reads_and_the_hub_ask_for_rights() {
        let sources = sources(&here()).unwrap();
        let asks = |source: &&Source| {
            let code = source.shipped();
            code.contains("rights") && code.contains("Action::") && code.contains(".permit(")
        };
        let shipped = sources.iter().filter(|source| {
            let dev = source.path.starts_with("crates/dev/");
            let own = source.path.starts_with("crates/rights/");
            !source.is_test() && !dev && !own
        });
        let mut asking: Vec<&str> = shipped
            .filter(asks)
            .map(|source| source.path.as_str())
            .collect();
        asking.sort_unstable();
        let expected = [
            "broadcast-sse/src/hub.rs",
            "chat-service/src/ingest.rs",
            "chat-service/src/reads.rs",
        ];
        assert_eq!(asking, expected);
    }

    /// What is written between backticks and looks like a path is one, or the end of one.
    #[test]
    fn documents_name_files_that_exist() {
        let root = here();
        let listed = Command::new("git")
            .arg("ls-files")
            .current_dir(&root)
            .output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        let files: Vec<&str> = listed.lines().collect();
        let exists = |name: &str| {
            let name = name.trim_end_matches('/');
            files.iter().any(|file| {
                let folder = format!("/{name}/");
                let file = format!("/{file}");
                file.ends_with(&format!("/{name}")) || file.contains(&folder)
            })
        };
        let documents = files.iter().filter(|file| {
            let decision = file.starts_with("docs/decisions/");
            decision || ["ARCHITECTURE.md", "CONTRIBUTING.md"].contains(file)
        });
        let mut missing = Vec::new();
        for document in documents {
            let text = fs::read_to_string(root.join(document)).unwrap();
            for word in text.split('`').skip(1).step_by(2) {
                let path = word
                    .chars()
                    .all(|c| c.is_alphanumeric() || "/._-".contains(c));
                let ours = [".rs", ".toml", ".js", ".sql"]
                    .iter()
                    .any(|end| word.ends_with(end))
                    || word.starts_with("crates/");
                if path && word.contains('/') && ours && !exists(word) {
                    missing.push(format!("{document}: {word}"));
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
    }

    /// What has been reached stays. The PostgreSQL store is still above its aim (decision 29).
    #[test]
    fn facts_hold() {
        const POSTGRES_NOW: usize = 3_750;
        for fact in count(&here()).unwrap() {
            let most = match fact.what {
                "lines of the PostgreSQL store, besides tests" => POSTGRES_NOW,
                _ => fact.most,
            };
            let Fact { what, counted, .. } = fact;
            assert!(counted <= most, "{counted} {what}: {:#?}", fact.where_it_is);
        }
    }

    #[test]
    fn the_way_of_one_message_names_files_that_exist() {
        let way = way_of_one_message(&here()).unwrap();
        assert!(way.counted <= way.most, "{:?}", way.where_it_is);
    }
}
