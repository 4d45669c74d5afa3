//! The canonical event envelope: parsing, validation, canonical form, building.
