//! What names in a file stand for, as far as its `use` lines tell.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;
use syn::{ItemUse, UseTree};

/// The trait that publishes.
pub(super) const PUBLISHER: &str = "EventBusPublisher";

/// Crates of ours through which a bus can be had.
const BUS_CRATES: [&str; 9] = [
    "eb_contract",
    "eb_profile",
    "eb_file",
    "eb_memory",
    "eb_kinesis",
    "eb_redis",
    "eb_rollout",
    "eb_conformance",
    "eb_testkit",
];

/// Whether a crate, by the name that sources use, is one of those.
pub(crate) fn is_bus_crate(name: &str) -> bool {
    BUS_CRATES.contains(&name)
}

/// The imports of a file. Modules within a file share them: that is coarser than Rust, and errs towards seeing more.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// Local name → full path.
    names: BTreeMap<String, Vec<String>>,
    /// Whether the trait's methods can be called by their names.
    pub(super) publisher_in_scope: bool,
    /// Whether the file names a crate of ours through which a bus can be had.
    pub(super) near_bus: bool,
    /// Crates that the file names first in a path.
    first_segments: BTreeSet<String>,
}

impl Imports {
    pub(super) fn of(file: &syn::File) -> Self {
        let mut imports = Self::default();
        imports.visit_file(file);
        imports.near_bus = imports.first_segments.iter().any(|name| is_bus_crate(name));
        imports
    }

    /// The full path of a path, `use … as …` undone.
    pub(super) fn resolve(&self, path: &syn::Path) -> Vec<String> {
        let mut segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if let Some(full) = segments.first().and_then(|first| self.names.get(first))
            && path.leading_colon.is_none()
        {
            segments.splice(..1, full.iter().cloned());
        }
        segments
    }

    fn tree(&mut self, before: &mut Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(before, &path.tree);
                before.pop();
            }
            UseTree::Name(name) => self.leaf(before, &name.ident.to_string(), &name.ident.to_string()),
            UseTree::Rename(rename) => {
                self.leaf(before, &rename.ident.to_string(), &rename.rename.to_string());
            }
            UseTree::Glob(_) => {
                // `use eb_contract::*;`, or a prelude that hands on what it likes.
                let of_ours = before.first().is_some_and(|first| is_bus_crate(first));
                self.publisher_in_scope |= of_ours;
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }

    fn leaf(&mut self, before: &[String], name: &str, local: &str) {
        let mut full = before.to_vec();
        if name != "self" {
            full.push(name.to_owned());
        }
        let local =
            if local == "self" { before.last().cloned().unwrap_or_default() } else { local.to_owned() };
        self.publisher_in_scope |= full.last().is_some_and(|last| last == PUBLISHER);
        if local != "_" {
            self.names.insert(local, full);
        }
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut first = &item.tree;
        while let UseTree::Group(group) = first {
            // `use {a::b, c::d};`
            for tree in &group.items {
                if let UseTree::Path(path) = tree {
                    self.first_segments.insert(path.ident.to_string());
                }
            }
            let Some(next) = group.items.first() else { break };
            first = next;
        }
        if let UseTree::Path(path) = first {
            self.first_segments.insert(path.ident.to_string());
        }
        self.tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1
            && let Some(first) = path.segments.first()
        {
            self.first_segments.insert(first.ident.to_string());
        }
        syn::visit::visit_path(self, path);
    }
}

impl Imports {
    /// Whether the file names this crate.
    pub(super) fn mentions(&self, name: &str) -> bool {
        self.first_segments.contains(name)
    }
}
