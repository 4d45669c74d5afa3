//! The suite for register stores.

use std::sync::Arc;

use bytes::Bytes;
use eb_contract::stores::{RegisterStore, Versioned};
use eb_contract::{BoxFuture, RegisterName};

mod scenarios;
mod swaps;

pub use scenarios::register_scenarios;

use crate::outcome::ensure_eq;
use crate::{Need, Outcome, Pace, Plan, Verdict, run};

/// Opens fresh register stores of one kind.
pub trait RegisterFactory: Send + Sync {
    /// How patient the suite is.
    fn pace(&self) -> Pace {
        Pace::LOCAL
    }

    /// A new, empty store, apart from all others.
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestRegisterStore>>>;
}

/// An open register store under test.
pub trait TestRegisterStore: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn RegisterStore>;

    /// Another opening of the same data beside the first, as another process has it.
    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn RegisterStore>>>;

    /// Closes the store and opens the same data again.
    fn reopen(&mut self) -> BoxFuture<'_, Outcome>;

    /// Closes everything and removes what the test has left behind.
    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome>;
}

/// Which scenarios run on the factory's stores: all.
pub fn register_plan(_: &dyn RegisterFactory) -> Plan {
    Plan::new(register_scenarios(), lacks)
}

fn lacks(_: Need) -> Option<String> {
    Some("it is not for register stores".to_owned())
}

/// Runs one scenario on a fresh store of the factory, on a runtime of its own.
///
/// # Panics
/// When there is no scenario of that name.
pub fn run_register_scenario(name: &str, factory: &dyn RegisterFactory) -> Verdict {
    let scenario = run::find(register_scenarios(), name);
    run::on_runtime(None, factory.pace().deadline, async {
        let mut case = RegisterCase { open: factory.open_fresh().await? };
        let outcome = (scenario.run)(&mut case).await;
        let down = case.open.shutdown().await;
        outcome.and(down)
    })
}

/// A fresh register store as a scenario sees it.
pub struct RegisterCase {
    pub(crate) open: Box<dyn TestRegisterStore>,
}

impl RegisterCase {
    pub(crate) fn store(&self) -> Arc<dyn RegisterStore> {
        self.open.store()
    }

    pub(crate) async fn swap(&self, expected: u64, value: &str) -> eb_contract::Result<Versioned> {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.store().swap(&name("plan"), expected, value, "a test").await
    }

    /// What stands is this.
    pub(crate) async fn expect(&self, version: u64, value: &str) -> Outcome {
        let stands = self.store().load(&name("plan")).await?;
        let expected = Versioned { version, value: Bytes::copy_from_slice(value.as_bytes()) };
        ensure_eq!(stands, Some(expected), "what stands");
        Ok(())
    }
}

pub(crate) fn name(text: &str) -> RegisterName {
    RegisterName::new(text).expect("the suite's register names are valid")
}
