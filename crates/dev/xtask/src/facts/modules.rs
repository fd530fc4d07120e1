use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Source;
use super::circles::Graph;

/// Which modules of a crate use which, by what their `use` lines and paths say: not the compiler's
/// truth, but near enough to find circles.
pub(super) fn graph(root: &str, sources: &[Source]) -> Graph {
    let modules: BTreeMap<String, String> = sources
        .iter()
        .filter(|source| !source.is_test())
        .filter_map(|source| {
            let inside = source.path.strip_prefix(root)?.strip_prefix("/src/")?;
            let name = inside.strip_suffix(".rs")?.replace('/', "::");
            let name = match name.as_str() {
                "lib" => String::new(),
                // Only names what the library has.
                "main" => return None,
                _ => name,
            };
            Some((name, without_comments(source.shipped())))
        })
        .collect();
    let names = Names::new(&modules);
    let mut graph = Graph::new();
    for (name, text) in &modules {
        let mut used: BTreeSet<String> = paths(text)
            .iter()
            .filter_map(|path| names.module_of(name, path))
            .collect();
        used.remove(name);
        used.remove("");
        graph.insert(name.clone(), used);
    }
    graph
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| match line.find("//") {
        Some(at) => &line[..at],
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What names mean.
struct Names<'a> {
    modules: &'a BTreeMap<String, String>,
    /// What modules show under a name of their own: module and name, and where it is.
    shown: HashMap<(String, String), String>,
}

impl<'a> Names<'a> {
    fn new(modules: &'a BTreeMap<String, String>) -> Self {
        let mut names = Self {
            modules,
            shown: HashMap::new(),
        };
        // What is shown may be what another shows.
        for _ in 0..3 {
            for (module, text) in modules {
                for tree in use_trees(text, true) {
                    for path in expand(&tree) {
                        let (Some(at), Some(last)) = (names.module_of(module, &path), path.last())
                        else {
                            continue;
                        };
                        names.shown.insert((module.clone(), last.clone()), at);
                    }
                }
            }
        }
        names
    }

    /// The module that a path leads to, as it is read in `from`; `None` for other crates.
    fn module_of(&self, from: &str, path: &[String]) -> Option<String> {
        let mut rest = path;
        let mut module = match rest.first()?.as_str() {
            "crate" => {
                rest = &rest[1..];
                String::new()
            }
            "self" => {
                rest = &rest[1..];
                from.to_owned()
            }
            "super" => {
                let mut module = from.to_owned();
                while rest.first().is_some_and(|step| step == "super") {
                    module = module
                        .rsplit_once("::")
                        .map_or("", |(parent, _)| parent)
                        .to_owned();
                    rest = &rest[1..];
                }
                module
            }
            first if self.modules.contains_key(&join(from, first)) => from.to_owned(),
            _ => return None,
        };
        while let Some(step) = rest.first() {
            let below = join(&module, step);
            if self.modules.contains_key(&below) {
                module = below;
            } else if let Some(other) = self.shown.get(&(module.clone(), step.clone())) {
                return Some(other.clone());
            } else {
                break;
            }
            rest = &rest[1..];
        }
        Some(module)
    }
}

fn join(module: &str, step: &str) -> String {
    if module.is_empty() {
        step.to_owned()
    } else {
        format!("{module}::{step}")
    }
}

/// All paths that a file names in `use` lines, and those in its code that begin with `crate` or
/// `super`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let trees = use_trees(text, false);
    let mut paths: Vec<_> = trees.iter().flat_map(|tree| expand(tree)).collect();
    let is_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_of_path(c));
    let inside = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    paths.extend(inside.map(split));
    paths
}

/// The trees of `use` lines, or of those only that show something to others.
fn use_trees(text: &str, shown: bool) -> Vec<String> {
    let mut trees = Vec::new();
    for statement in text.split(';') {
        // Attributes and items before it end with a brace, a bracket or a line.
        let Some(at) = statement.rfind("use ") else {
            continue;
        };
        let line = statement[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = statement[line..at].trim();
        if before.is_empty() && !shown || before.starts_with("pub") {
            trees.push(statement[at + "use ".len()..].trim().to_owned());
        }
    }
    trees
}

/// The paths of a `use` tree.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some(brace) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![split(path)];
    };
    let prefix = split(&tree[..brace]);
    let inside = tree[brace + 1..].trim_end().trim_end_matches('}');
    let inside = match tree.matches('{').count() {
        1 => inside.to_owned(),
        // The last brace is this tree's; those before it belong to what is inside.
        _ => tree[brace + 1..tree.rfind('}').unwrap_or(tree.len())].to_owned(),
    };
    let mut paths = Vec::new();
    let (mut depth, mut begin) = (0_u32, 0);
    let ends = inside.char_indices().chain([(inside.len(), ',')]);
    for (at, c) in ends.collect::<Vec<_>>() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                let branch = &inside[begin..at];
                begin = at + 1;
                if !branch.trim().is_empty() {
                    let below = expand(branch).into_iter();
                    paths.extend(below.map(|path| [prefix.clone(), path].concat()));
                }
            }
            _ => {}
        }
    }
    paths
}

fn split(path: &str) -> Vec<String> {
    let steps = path.split("::").map(str::trim);
    steps
        .filter(|step| !step.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: format!("it/src/{path}"),
            text: text.to_owned(),
        }
    }

    #[test]
    fn uses_are_found_through_what_a_parent_shows() {
        let sources = [
            source("lib.rs", "mod a;\nmod b;\npub use a::inner::Thing;\n"),
            source("a.rs", "mod inner;\n"),
            source(
                "a/inner.rs",
                "use crate::b::{self, other::{C, D}};\n// crate::b::e\n",
            ),
            source(
                "b.rs",
                "use std::fmt;\nuse crate::Thing;\nfn f() { super::a::g(); }\n",
            ),
            source("b/tests.rs", "use crate::a;\n"),
        ];
        let graph = graph("it", &sources);
        let used = |name: &str| graph[name].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(used("a::inner"), ["b"]);
        assert_eq!(used("b"), ["a", "a::inner"]);
        assert!(!graph.contains_key("b::tests"));
    }
}
