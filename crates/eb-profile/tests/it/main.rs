//! Profiles as their readers see them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod consumers;
mod errors;
#[cfg(feature = "kinesis")]
mod kinesis;
mod lookup;
#[cfg(all(unix, feature = "redis"))]
mod on_redis;
mod opening;
#[cfg(feature = "postgres")]
mod postgres;
mod redis;
#[cfg(all(feature = "redis", feature = "rollout"))]
mod rollout;
#[cfg(all(unix, feature = "redis", feature = "rollout"))]
mod rollout_claims;
mod runtimes;
mod settings;

use eb_profile::{Env, Profile, ProfileError, ProfileSource};

/// A profile's text that works, for tests to spoil.
pub(crate) const GOOD: &str = "\
profile_id: test
policy:
  policy_rev: v0
  partitioning_profiles_ref: ig/partitioning_profiles_v0.yaml
  class_map_ref: ig/class_map_v0.yaml
  schema_policy_ref: ig/schema_policy_v0.yaml
wiring:
  event_bus_kind: file
  event_bus:
    root: ${RUNS:-runs}/event_bus
    topics:
      t.one: 1
      t.two: ${PARTITIONS:-4}
  checkpoint_store:
    kind: file
  admission_index:
    kind: embedded
    path: ${RUNS:-runs}/ig/index
  quarantine:
    kind: file
    root: ${RUNS:-runs}/ig/quarantine
";

/// Reads a text as if it lay in `p.yaml` of a folder `/base`, with these variables.
pub(crate) fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Profile, ProfileError> {
    let env = Env::only(variables.iter().copied());
    Profile::parse(ProfileSource::file("p.yaml", "/base"), text, &env)
}

/// [`GOOD`] with a part of it replaced; the part must be there.
pub(crate) fn spoilt(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is not in the profile");
    GOOD.replacen(from, to, 1)
}
