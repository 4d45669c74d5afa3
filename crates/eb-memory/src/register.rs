//! The reference register store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use eb_contract::stores::{
    REGISTER_HISTORY, RegisterChange, RegisterStore, Versioned, check_swap, version_conflict,
};
use eb_contract::{BoxFuture, Error, RegisterName, Result, Timestamp};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;

/// Registers in memory: they live as long as any clone of the store, and cloning is the way to reopen it.
///
/// Calls are done when they return their future; dropping it changes nothing.
#[derive(Clone, Default)]
pub struct MemoryRegisterStore {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    registers: BTreeMap<RegisterName, Register>,
    outage: Option<Error>,
}

struct Register {
    stands: Versioned,
    /// Oldest first.
    history: VecDeque<RegisterChange>,
}

impl MemoryRegisterStore {
    /// A new, empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every call of every clone answers `error`, until `None` is set.
    pub fn outage(&self, error: Option<Error>) {
        self.state.lock().outage = error;
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        match &state.outage {
            Some(error) => Err(error.clone()),
            None => work(&mut state),
        }
    }
}

impl State {
    fn swap(&mut self, name: &RegisterName, expected: u64, value: Bytes, reason: &str) -> Result<Versioned> {
        check_swap(name, &value, reason)?;
        let current = self.registers.get(name).map_or(0, |r| r.stands.version);
        if current != expected {
            return Err(version_conflict(name, expected, current));
        }
        let stands = Versioned { version: current + 1, value };
        let register = self
            .registers
            .entry(name.clone())
            .or_insert_with(|| Register { stands: stands.clone(), history: VecDeque::new() });
        register.stands = stands.clone();
        let change =
            RegisterChange { version: stands.version, at: Timestamp::now(), reason: reason.to_owned() };
        register.history.push_back(change);
        if register.history.len() > REGISTER_HISTORY {
            register.history.pop_front();
        }
        Ok(stands)
    }
}

impl RegisterStore for MemoryRegisterStore {
    fn load<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Versioned>>> {
        ready(self.with(|state| Ok(state.registers.get(name).map(|r| r.stands.clone())))).boxed()
    }

    fn swap<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: u64,
        value: Bytes,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Versioned>> {
        ready(self.with(|state| state.swap(name, expected, value, reason))).boxed()
    }

    fn history<'a>(
        &'a self,
        name: &'a RegisterName,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<RegisterChange>>> {
        let changes = self.with(|state| {
            let history = state.registers.get(name).map(|r| &r.history);
            Ok(history.into_iter().flatten().rev().take(max).cloned().collect())
        });
        ready(changes).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        ready(self.with(|_| Ok(()))).boxed()
    }
}
