//! The edges of a graph, and what they say about the order of executions.

use std::collections::HashMap;

/// Which node waits for which.
#[derive(Clone, Debug, Default)]
pub struct GraphEdges {
    inputs: HashMap<String, Vec<String>>,
}

impl GraphEdges {
    /// From node names and edges between their indices; an edge out of range is ignored.
    #[must_use]
    pub fn new(names: &[String], edges: &[(u32, u32)]) -> GraphEdges {
        let mut inputs: HashMap<String, Vec<String>> = names.iter().map(|name| (name.clone(), Vec::new())).collect();
        for &(from, to) in edges {
            let (Some(from), Some(to)) = (names.get(from as usize), names.get(to as usize)) else { continue };
            if let Some(list) = inputs.get_mut(to) {
                list.push(from.clone());
            }
        }
        GraphEdges { inputs }
    }

    /// Nodes in the graph.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.inputs.len()
    }

    /// For each execution in order, the earlier executions it waited for: the latest one of each input node. A node that
    /// the graph does not know, such as a function body's, is taken to wait for everything before it.
    pub fn predecessors<'a>(&self, executed: impl Iterator<Item = &'a str>) -> Vec<Vec<u32>> {
        let mut latest: HashMap<&str, u32> = HashMap::new();
        let mut result: Vec<Vec<u32>> = Vec::new();
        for (index, name) in executed.enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let mut before: Vec<u32> = match self.inputs.get(name) {
                Some(inputs) => inputs.iter().filter_map(|input| latest.get(input.as_str()).copied()).collect(),
                None => index.checked_sub(1).into_iter().collect(),
            };
            before.sort_unstable();
            before.dedup();
            result.push(before);
            latest.insert(name, index);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_execution_of_an_input_is_the_predecessor() {
        let names: Vec<String> = ["a", "b", "loop"].map(String::from).to_vec();
        let edges = GraphEdges::new(&names, &[(0, 1), (1, 2), (2, 2), (9, 1)]);
        assert_eq!(edges.node_count(), 3);
        let order = ["a", "b", "loop", "loop", "stranger", "b"];
        let expected: Vec<Vec<u32>> = vec![vec![], vec![0], vec![1], vec![1, 2], vec![3], vec![0]];
        assert_eq!(edges.predecessors(order.into_iter()), expected);
    }
}
