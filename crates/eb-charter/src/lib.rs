//! The charter's checker: what a compiler does not check of a project that publishes events.
//!
//! It reads sources as text, with [`syn`], and needs neither a build nor a network. `cargo xtask charter` runs it over this workspace, `eb lint PATH` over anybody's.
//!
//! # The rules
//!
//! | rule | broken by |
//! |---|---|
//! | `publish-past-gate` | a call of `publish` or `publish_batch` of `EventBusPublisher` |
//! | `event-type` | an event type that is not `<domain>.<resource>.<past-tense>`: in Rust, in YAML (`event_type:`, `event_types:`), as a folder of schemas |
//! | `event-fields` | an event built without `producer`, `source_module` or `schema_version` |
//! | `released-schema` | a released event schema that changed or vanished, and whatever else `eb schema check` finds |
//! | `backend-import` | a backend that names another backend, in `Cargo.toml` or in its source |
//! | `unreadable` | a file that cannot be read or parsed: nobody vouches for it |
//! | `charter-config` | `charter.toml` naming a path that is not there |
//!
//! A past tense ends in `-ed`, or stands in a list of irregular verbs that is built in (`irregular_verbs.txt`) and that files of the project's own add to.
//!
//! # `charter.toml`
//! In the folder that is checked, or the nearest one above. Without it everything is checked and nothing allowed.
//! ```toml
//! [[skip]]                          # not looked at
//! path = "vendor"
//! reason = "Not ours."
//!
//! [[allow]]                         # a rule, a place (path, or code = "tests", or both), a reason
//! rule = "publish-past-gate"
//! path = "src/replay.rs"
//! reason = "Copies admitted bytes."
//!
//! [event-types]
//! exceptions = ["event_verbs.txt"]  # a word a line; `!word` takes one away
//!
//! [backends]
//! crates = ["eb-file", "eb-redis"]  # packages that may not know each other
//!
//! [schemas]
//! folders = ["config/schemas/events"]   # the default, where it exists
//! require = "backward"
//!
//! [yaml]
//! folders = ["config"]                  # the default, where it exists
//! ```
//! Test code is what lies in `tests/`, `benches/` or `examples/` of a package, under `#[test]` or `#[cfg(test)]`, and in files of modules
//! that are declared so.
//!
//! # How it knows that something publishes
//! There is no type inference. A call `x.publish(a, b)` or `x.publish_batch(a, b)`, of exactly two arguments, counts where one of these holds:
//! 1. `x` (a variable, parameter, field, function or method of this file) is annotated with a type that mentions `EventBusPublisher`, also
//!    by another name (`use … as …`, a type alias, a bound of a type parameter), or a `…Publisher` of one of our crates;
//! 2. the trait is imported in this file under any name, `_` included, or by a glob of one of our crates;
//! 3. the file names one of our crates through which a bus can be had (`eb_contract`, `eb_profile`, a backend, …);
//! 4. the package depends on one of them, and the method is `publish_batch`, or `x` is called `publisher` or `…_publisher`.
//!
//! It does not count where every annotation of `x` in the file names types of foreign crates only (an `async_nats::Client`, say). Paths count, too:
//! `EventBusPublisher::publish`, `<T as EventBusPublisher>::publish`, `FilePublisher::publish`, called or handed on.
//!
//! # What it cannot see
//! * What a macro expands to. Arguments of macros are looked at where they parse as expressions or statements, and as bare tokens elsewhere; a call that a
//!   `macro_rules!` or a derive makes in another crate is invisible.
//! * A publisher that comes without annotation from another file, in a file and a package that name none of our crates and under a name that says
//!   nothing; a trait of one's own that wraps ours.
//! * Event types that are computed, or come from constants of other files. In Rust these places are looked at: `EnvelopeBuilder::new`, `.event_type(…)`,
//!   `.on(…)` and `.on_raw(…)` of consumers, fields, variables and constants called so, comparisons and matches with `event_type`, `json!`, and JSON in strings.
//! * Builders that leave the function that made them before `build`, and events in JSON that lack `event_id` or `manifest_fingerprint` (they are
//!   parts of events). Whether a field that is set holds something sensible is the gate's to say.
//! * Code that is never compiled counts like all other code.
//!
//! It is a guardrail, not a wall: the wall is that credentials to publish are the gate's alone.
//!
//! # Limits
//! Files of 1 MiB, brackets nested 200 deep, 200,000 files, folders 64 deep; beyond them a file is `unreadable`. Symbolic links are not
//! followed. The check runs on a thread of its own with a large stack.

mod charter;
mod config;
mod event_type;
mod manifest;
mod rust;
mod tree;
mod violation;
mod yaml;

pub use charter::{Charter, Report};
pub use violation::{CharterError, Rule, Violation};
