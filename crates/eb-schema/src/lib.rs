//! Versioned, immutable event schemas: where they lie, which are released, and what a new version may change.
//!
//! # The layout
//! ```text
//! schemas/
//!   events/<event type>/<version>.json    one version of one payload: JSON Schema, draft 2020-12
//!   events.lock                           the released versions, each with the SHA-256 of its file's bytes
//! ```
//! * An event type is 1–200 of `A-Z a-z 0-9 _ -` in segments parted by single dots. It becomes a folder's name and nothing else ever does.
//! * A version is one to three numbers parted by dots (`1`, `1.2`, `1.2.0`), each at most 999,999,999 and without leading zeros, compared as
//!   numbers; a number that is missing counts as 0, and a type cannot have two versions that are equal.
//! * A file names itself: `$schema` is draft 2020-12, and `$id` ends in `<event type>:<version>` or `<event type>/<version>`, with or without
//!   `.json`. It is one object, at most 256 KiB, 64 deep, 20,000 values, and refers to nothing outside itself, on ways of at most 512 schemas
//!   ([`MAX_REACH`]: a chain of references is followed on the stack). No key stands twice, and
//!   a keyword that the draft does not know is a fault unless it starts with `x-` (a `requird` would otherwise check nothing and say nothing).
//!
//! # The lock
//! [`Lock`] says what is released: a version with a line in it never changes and never goes. One line a version, sorted by type and version:
//! ```text
//! # comment
//! <sha256, 64 lower-case hex digits>  <event type>/<version>.json
//! ```
//! The lines are those of `sha256sum`, so that `cd schemas/events && sha256sum -c ../events.lock` says the same as we do. A lock of
//! another order, with a line twice or a line that is something else, is refused with its line: a merge that went wrong must be seen.
//! Lines are only ever added; [`Lock::lost_since`] compares a lock with an earlier one, which shows somebody who changed both
//! file and lock.
//!
//! # Compatibility
//! The question is about sets of documents. `S(v)` are the documents that version `v` takes:
//!
//! | direction | holds when | whom a break hurts |
//! |---|---|---|
//! | backward | `S(old) ⊆ S(new)` | consumers on the new version that read events of the old one (a replay) |
//! | forward | `S(new) ⊆ S(old)` | consumers still on the old version that read new events (a rollout) |
//!
//! These are the meanings of Confluent's Schema Registry, and so are the rules for open and closed content models that follow
//! from them (<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/serdes-json.html#json-schema-compatibility-rules>,
//! and `SchemaDiff` and `ObjectSchemaDiff` of `confluentinc/schema-registry`). Two things differ: a `default` repairs nothing here, because
//! nobody fills it in, and what Confluent's rules would call compatible by shape is called so here only when it can be proven.
//!
//! [`Answer`] is `Yes`, `No` or `CannotTell`, and they are not equally strong:
//! * **Yes** is a proof: every document of the one is a document of the other. A property test holds it against the validator that the gate uses.
//! * **No** means that a rule below was broken and nothing else in the schema was seen that could make up for it. Enumerated values are
//!   tried one by one, so that there it is a proof, too. A schema that takes no document at all can still be accused.
//! * **CannotTell** is its own answer, never taken for compatible: the proof needs more than these rules know.
//!
//! The procedure decides `sub ⊆ sup`, forward and backward being the same with the sides exchanged. `sub` is taken as a conjunction: the object
//! itself, its `$ref`, its `allOf`. Every keyword of `sup` must follow from it:
//!
//! | keyword of `sup` | follows when |
//! |---|---|
//! | `true`, annotations, `format` (the gate does not assert it), `content…`, unknown ones | always |
//! | `type` | the types of `sub` are among them; `integer` ⊂ `number` |
//! | anything, where `sub` is finite (`enum`, `const`, only `null` and booleans) | each value that `sub` takes is taken |
//! | `enum`, `const` | only so; from a `sub` that is not finite: No |
//! | `minimum`, `exclusiveMinimum`, `maximum`, `exclusiveMaximum` | the bound of `sub` is at least as tight, compared exactly, integers to the next integer |
//! | `multipleOf` | equal, or both whole and a multiple |
//! | `minLength`, `maxLength`, `minItems`, `maxItems`, `minProperties`, `maxProperties` | the bound of `sub` is at least as tight |
//! | `pattern` | `sub` has the same; else No with a string that shows it, or CannotTell |
//! | `uniqueItems: true` | `sub` has it, or at most one item |
//! | `prefixItems`, `items` | item by item, the rest against the rest, as far as `sub` allows so many |
//! | `contains`, `minContains`, `maxContains` | equal in `sub`; added where an empty array was fine: No |
//! | `required` | `sub` requires it |
//! | `properties` | what `sub` takes under that name is taken. A name that an *open* `sub` leaves free may hold anything: adding a property to an open content model is No, unless its schema takes everything |
//! | `additionalProperties`, `patternProperties` | for every name of either side, and for all others by cases. Closing an open model is No; removing a property from a closed one is No |
//! | `propertyNames` | follows from that of `sub`, or for every name of a closed `sub` |
//! | `dependentRequired` | `sub` has it, or requires the names anyway, or never has the property |
//! | `allOf`, `$ref` within the file | each follows; recursion is assumed where an instance has been entered since |
//! | `anyOf` | `sub` follows into one branch, whole or type by type or branch by branch of its own `anyOf`/`oneOf` |
//! | `oneOf` | as `anyOf`, and `sub` shares nothing with the other branches: by type, or by a required property with other values |
//! | `not`, `if`/`then`/`else`, `dependentSchemas` | equal in `sub`; or a disjoint type; or all its outcomes follow; else CannotTell |
//! | `unevaluatedProperties`, `unevaluatedItems` | the whole object around is equal in `sub`; else CannotTell |
//! | `$dynamicRef`, a `$ref` that leads nowhere | CannotTell |
//!
//! Keywords of `sub` that are not in the table (`not`, an unsplit `oneOf`, …) can only make `sub` smaller: leaving them out keeps Yes true, and
//! turns No into CannotTell. The work is bounded by steps; beyond them the answer is CannotTell.
//!
//! # Which compatibility a version needs
//! [`Requirement`], by default `backward`, between neighbours of the same first number. Inclusion of sets is transitive, so that neighbours are enough
//! for a whole line of versions. A new first number starts afresh and owes nothing.
//!
//! # Failure cases
//! Everything that is wrong comes as a [`Fault`]: file, JSON pointer, rule, one line of words. [`Catalogue`] collects them all instead of stopping at the
//! first. Nothing here changes a file but [`write_lock`], which replaces the lock by rename: a crash leaves the old one or the new one.

mod catalogue;
mod compat;
mod document;
mod fault;
mod files;
mod lock;
mod name;
mod reach;
mod vocabulary;

pub use catalogue::{Catalogue, Listed, Release, Requirement};
pub use compat::{Answer, Change, ChangeKind, Comparison, Finding, Side, compare, compare_values};
pub use document::{DRAFT, MAX_BYTES, MAX_DEPTH, MAX_VALUES, Schema, sha256};
pub use fault::{Fault, Rule};
pub use files::{MAX_FILES, SchemaFiles, write_lock};
pub use lock::{Lock, Released};
pub use name::{Version, check_event_type, path_of};
pub use reach::MAX_REACH;
