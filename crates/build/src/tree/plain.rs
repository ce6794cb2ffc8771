//! A tree of a few nodes in memory: what was fetched, and a root in which nothing is.

use std::collections::BTreeMap;

use super::{Kind, Node, Tree, TreeError, above, split};

/// Nodes by their paths. The root is always there.
#[derive(Debug, Clone)]
pub struct PlainTree(BTreeMap<Vec<u8>, Node>);

impl PlainTree {
    /// An empty directory of root's.
    pub fn empty() -> Self {
        Self(BTreeMap::from([(Vec::new(), Node::directory((0, 0)))]))
    }

    /// The same with something at a clean path; what is missing above it is made.
    pub fn with(mut self, path: &[u8], node: Node) -> Self {
        for directory in above(path) {
            self.0.entry(directory.to_vec()).or_insert_with(|| Node::directory(node.mtime));
        }
        self.0.insert(path.to_vec(), node);
        self
    }
}

impl Tree for PlainTree {
    fn kind(&self, path: &[u8]) -> Result<Option<Kind>, TreeError> {
        Ok(self.0.get(path).map(Node::short))
    }

    fn node(&self, path: &[u8]) -> Result<Option<Node>, TreeError> {
        Ok(self.0.get(path).cloned())
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, TreeError> {
        let below = self.0.keys().filter(|below| !below.is_empty() && split(below).0 == path);
        Ok(below.map(|below| split(below).1.to_vec()).collect())
    }
}
