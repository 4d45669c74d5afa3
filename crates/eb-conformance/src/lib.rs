//! The one suite that every event bus backend and store passes.
//!
//! Each scenario states one thing that must hold, and becomes a test of that name. What a backend's declared
//! [`Capabilities`](eb_contract::Capabilities) exclude is not run and is said so, by name and reason.
//!
//! # Hooking up a bus
//! Implement [`BusFactory`] and [`TestBus`] in a test of the backend, and expand the suite in a module of its own:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use eb_conformance::{BusFactory, Outcome, TestBus};
//! use eb_contract::{BoxFuture, Capabilities, EventBusAdmin, EventBusPublisher, EventBusReader};
//! use eb_memory::MemoryBus;
//!
//! struct Buses;
//!
//! impl BusFactory for Buses {
//!     fn capabilities(&self) -> Capabilities {
//!         MemoryBus::new().capabilities().clone()
//!     }
//!
//!     fn partitions(&self) -> u32 {
//!         3
//!     }
//!
//!     // For a bus on disk: a fresh temporary folder, kept in the `TestBus`.
//!     fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestBus>>> {
//!         Box::pin(async { Ok(Box::new(OpenBus::new(MemoryBus::new())) as Box<dyn TestBus>) })
//!     }
//! }
//!
//! struct OpenBus {
//!     bus: MemoryBus,
//!     publisher: Arc<dyn EventBusPublisher>,
//!     reader: Arc<dyn EventBusReader>,
//! }
//!
//! impl OpenBus {
//!     fn new(bus: MemoryBus) -> Self {
//!         Self { publisher: Arc::new(bus.publisher()), reader: Arc::new(bus.reader()), bus }
//!     }
//! }
//!
//! impl TestBus for OpenBus {
//!     fn publisher(&self) -> Arc<dyn EventBusPublisher> {
//!         self.publisher.clone()
//!     }
//!
//!     fn reader(&self) -> Arc<dyn EventBusReader> {
//!         self.reader.clone()
//!     }
//!
//!     fn admin(&self) -> Arc<dyn EventBusAdmin> {
//!         Arc::new(self.bus.admin())
//!     }
//!
//!     fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
//!         Box::pin(async {
//!             self.publisher.close().await?;
//!             self.reader.close().await?;
//!             *self = Self::new(self.bus.reopen());
//!             Ok(())
//!         })
//!     }
//!
//!     fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
//!         Box::pin(async move { Ok(self.publisher.close().await?) })
//!     }
//! }
//!
//! mod three_partitions {
//!     eb_conformance::bus_suite!(super::Buses);
//! }
//! # fn main() {}
//! ```
//!
//! The expression is evaluated for every test. Errors of any type turn into [`Failure`] by `?`. A backend whose
//! topics are shared with other tests overrides [`TestBus::create_topic`] with names of its own; one that trims or
//! reshards says so in [`BusFactory::offers`]. Every test runs on a multi-threaded tokio runtime of its own and is
//! given [`Pace::deadline`] to finish. `eb-memory`'s tests show the whole of it.
//!
//! # Hooking up stores
//! [`checkpoint_store_suite!`], [`admission_index_suite!`] and [`register_store_suite!`] do the same for a
//! [`CheckpointFactory`], an [`AdmissionFactory`] and a [`RegisterFactory`]; [`lease_store_suite!`],
//! [`processed_store_suite!`] and [`dead_letter_store_suite!`] for the stores of a consumer.
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

mod admission;
mod bus;
mod checkpoint;
mod dead_letter;
mod events;
mod lease;
mod macros;
mod outcome;
mod pace;
mod processed;
mod random;
mod register;
mod run;
mod scenario;

pub use admission::{
    AdmissionCase, AdmissionFactory, AdmissionOffers, TestAdmissionIndex, admission_plan,
    admission_scenarios, run_admission_scenario,
};
pub use bus::{
    BusCase, BusFactory, BusOffers, TestBus, bus_plan, bus_scenarios, check_bus_plan, run_bus_scenario,
};
pub use checkpoint::{
    CheckpointCase, CheckpointFactory, CheckpointOffers, ResetEntry, TestCheckpointStore, checkpoint_plan,
    checkpoint_scenarios, run_checkpoint_scenario,
};
pub use dead_letter::{
    DeadLetterCase, DeadLetterFactory, TestDeadLetterStore, dead_letter_plan, dead_letter_scenarios,
    run_dead_letter_scenario,
};
pub use lease::{LeaseCase, LeaseFactory, TestLeaseStore, lease_plan, lease_scenarios, run_lease_scenario};
pub use outcome::{Failure, Outcome};
pub use pace::Pace;
pub use processed::{
    ProcessedCase, ProcessedFactory, ProcessedOffers, TestProcessedStore, TestTransaction, processed_plan,
    processed_scenarios, run_processed_scenario,
};
pub use random::SEED_VARIABLE;
pub use register::{
    RegisterCase, RegisterFactory, TestRegisterStore, register_plan, register_scenarios,
    run_register_scenario,
};
#[doc(hidden)]
pub use run::{print_plan, report};
pub use scenario::{Need, Plan, Planned, Scenario, Verdict};
