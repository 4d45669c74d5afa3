//! Scenarios, what they need, and the plan of what runs on a backend.

use std::fmt;

use eb_contract::BoxFuture;

use crate::Outcome;

/// What a scenario needs of a backend or of its factory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// Capability `reopen`; for stores, a factory that can reopen.
    Reopen,
    /// Capability `key_order: strict`.
    StrictOrder,
    /// Capability `seek_by_time`.
    SeekByTime,
    /// Capability `retention`, and a factory that can trim.
    Retention,
    /// Capability `resharding`, and a factory that can split and merge.
    Resharding,
    /// A dense offset kind.
    DenseOffsets,
    /// [`Pace::immediate`](crate::Pace::immediate).
    Immediate,
    /// A backend whose topics its own `create_topic` makes.
    CreateTopics,
    /// A factory that can open a second publisher beside the first.
    SecondPublisher,
    /// A factory that shows the history of resets.
    ResetHistory,
    /// A factory that can crash the store.
    Crash,
    /// A shared admission index.
    SharedIndex,
    /// An admission index of one gate.
    OwnIndex,
    /// A store of marks that keeps checkpoints.
    KeepsCheckpoints,
    /// A store of marks with transactions.
    Transactions,
}

/// One scenario over a case `C` ([`BusCase`](crate::BusCase) and the like).
pub struct Scenario<C: 'static> {
    /// Its group.
    pub theme: &'static str,
    /// What must hold, as the name of its test.
    pub name: &'static str,
    /// What it needs; it is left out, by name, where something is missing.
    pub needs: &'static [Need],
    pub(crate) run: for<'a> fn(&'a mut C) -> BoxFuture<'a, Outcome>,
}

impl<C> fmt::Debug for Scenario<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.theme, self.name)
    }
}

/// How a scenario ended on a backend.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// All it checks holds.
    Passed,
    /// It does not apply, for this reason.
    NotRun(String),
    /// What it found.
    Failed(crate::Failure),
}

/// Which scenarios run on a backend, and why the others do not.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All scenarios of the suite, in its order.
    pub scenarios: Vec<Planned>,
}

/// One line of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The scenario's group.
    pub theme: &'static str,
    /// The scenario.
    pub name: &'static str,
    /// Why it is not run, if it is not.
    pub not_run: Option<String>,
}

impl Plan {
    pub(crate) fn new<C>(scenarios: &[Scenario<C>], lacks: impl Fn(Need) -> Option<String>) -> Self {
        let planned = scenarios.iter().map(|s| Planned {
            theme: s.theme,
            name: s.name,
            not_run: s.needs.iter().find_map(|need| lacks(*need)),
        });
        Self { scenarios: planned.collect() }
    }

    /// The names of the scenarios that are not run.
    #[must_use]
    pub fn not_run(&self) -> Vec<&'static str> {
        self.scenarios.iter().filter(|s| s.not_run.is_some()).map(|s| s.name).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for s in &self.scenarios {
            match &s.not_run {
                None => writeln!(f, "run      {:<12} {}", s.theme, s.name)?,
                Some(why) => writeln!(f, "not run  {:<12} {}: {why}", s.theme, s.name)?,
            }
        }
        let left_out = self.not_run().len();
        write!(f, "{} run, {left_out} not run", self.scenarios.len() - left_out)
    }
}
