//! The one suite that every event bus backend and store passes.
//!
//! Each scenario states one thing that must hold, and becomes a test of that name. What a backend's declared
//! [`Capabilities`](eb_contract::Capabilities) exclude is not run and is said so, by name and reason.
//!
//! # Hooking up a bus
//! Implement [`BusFactory`] and [`TestBus`] in a test of the backend, and expand the suite in a module of its own:
//!
//! ```ignore
//! struct Files;
//!
//! struct OpenFiles { dir: TempDir, bus: FileBus }
//!
//! impl BusFactory for Files {
//!     fn capabilities(&self) -> Capabilities { FileConfig::default().capabilities() }
//!     fn partitions(&self) -> u32 { 3 }
//!     fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestBus>>> {
//!         Box::pin(async {
//!             let dir = tempfile::tempdir()?;
//!             let bus = FileBus::open(dir.path()).await?;
//!             Ok(Box::new(OpenFiles { dir, bus }) as Box<dyn TestBus>)
//!         })
//!     }
//! }
//!
//! impl TestBus for OpenFiles {
//!     fn publisher(&self) -> Arc<dyn EventBusPublisher> { … }
//!     fn reader(&self) -> Arc<dyn EventBusReader> { … }
//!     fn admin(&self) -> Arc<dyn EventBusAdmin> { … }
//!     fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
//!         Box::pin(async move {
//!             self.bus.close().await?;
//!             self.bus = FileBus::open(self.dir.path()).await?;
//!             Ok(())
//!         })
//!     }
//!     fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> { … }
//! }
//!
//! mod three_partitions {
//!     eb_conformance::bus_suite!(super::Files);
//! }
//! ```
//!
//! The expression is evaluated for every test. Errors of any type turn into [`Failure`] by `?`. A backend whose
//! topics are shared with other tests overrides [`TestBus::create_topic`] with names of its own; one that trims or
//! reshards says so in [`BusFactory::offers`]. Every test runs on a multi-threaded tokio runtime of its own and is
//! given [`Pace::deadline`] to finish. `eb-memory`'s tests show the whole of it.
//!
//! # Hooking up stores
//! [`checkpoint_suite!`] and [`admission_suite!`] do the same for a [`CheckpointFactory`] and an
//! [`AdmissionFactory`].
//!
//! # What is expected of the surroundings
//! The bus is healthy: a scenario takes an unexpected error, also one that is retryable or of unknown outcome, for a
//! failure. What a backend does when things go wrong is shown by its own tests.
//!
//! # Randomised scenarios
//! They print their seed; `EB_CONFORMANCE_SEED` repeats it. With concurrent scenarios that fixes the operations, not
//! how they interleave.
//!
//! # Trusting the suite
//! This crate's own tests run it against deliberately broken buses and stores, and each must be caught.

mod bus;
mod events;
mod macros;
mod outcome;
mod pace;
mod random;
mod run;
mod scenario;

pub use bus::{
    BusCase, BusFactory, BusOffers, TestBus, bus_plan, bus_scenarios, check_bus_plan, run_bus_scenario,
};
pub use outcome::{Failure, Outcome};
pub use pace::Pace;
pub use random::SEED_VARIABLE;
#[doc(hidden)]
pub use run::{print_plan, report};
pub use scenario::{Need, Plan, Planned, Scenario, Verdict};
