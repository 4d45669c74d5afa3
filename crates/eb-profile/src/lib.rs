//! Composition root: from a profile YAML to an open bus, stores and gate.
