use std::collections::{BTreeMap, BTreeSet};

/// Which file uses which.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

/// Groups of files each of which uses, perhaps through others, all of its group. Uses between a
/// parent and what is below it do not count.
pub(super) fn find(graph: &Graph) -> Vec<Vec<String>> {
    let mut left: BTreeSet<&String> = graph.keys().collect();
    let mut circles = Vec::new();
    while let Some(start) = left.pop_first() {
        let there = reachable(graph, start);
        let circle: Vec<String> = there
            .iter()
            .filter(|other| **other != start && reachable(graph, other).contains(start))
            .map(|other| (*other).clone())
            .collect();
        if !circle.is_empty() {
            for member in &circle {
                left.remove(member);
            }
            circles.push([vec![start.clone()], circle].concat());
        }
    }
    circles
}

fn reachable<'a>(graph: &'a Graph, start: &'a String) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut open = vec![start];
    while let Some(at) = open.pop() {
        for next in graph.get(at).into_iter().flatten() {
            if !are_related(at, next) && found.insert(next) {
                open.push(next);
            }
        }
    }
    found
}

fn are_related(a: &str, b: &str) -> bool {
    let is_above = |above: &str, below: &str| {
        below
            .strip_prefix(above)
            .is_some_and(|rest| above.is_empty() || rest.starts_with("::"))
    };
    is_above(a, b) || is_above(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(uses: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::new();
        for (user, used) in uses {
            let used_by = graph.entry((*user).to_owned()).or_default();
            used_by.insert((*used).to_owned());
            graph.entry((*used).to_owned()).or_default();
        }
        graph
    }

    #[test]
    fn circles_are_found_and_families_are_none() {
        let found = find(&graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]));
        assert_eq!(found, [["a", "b", "c"]]);
        assert!(find(&graph(&[("a", "a::b"), ("a::b", "a"), ("a", "c")])).is_empty());
        assert_eq!(find(&graph(&[("a", "ab"), ("ab", "a")])).len(), 1);
    }
}
