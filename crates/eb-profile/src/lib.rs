//! stub
mod builtin;
mod error;
mod interpolate;
mod locate;
mod model;
mod secret;
mod section;
mod yaml;

pub use error::{Place, ProfileError};
pub use interpolate::{Env, MAX_EXPANDED_BYTES, VariableUse};
pub use locate::{CONFIG_DIR, ProfileSource};
pub use model::{
    AdmissionIndexConfig, BusKind, CheckpointStoreConfig, EventBusConfig, KIND_OVERRIDE, PolicyConfig,
    PolicyRef, Profile, QuarantineConfig, Wiring,
};
pub use secret::Secret;
pub use section::{Origin, Setting};
