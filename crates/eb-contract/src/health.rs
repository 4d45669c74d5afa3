//! How something that runs on a bus is: a gate, a consumer.

use std::fmt;

use serde::Serialize;

/// How something, or a part of it, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It works.
    Ready,
    /// It works, but something is amiss.
    Degraded,
    /// It does not work, at least not all of it.
    Failing,
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        })
    }
}

/// One fact about how something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// What it is about, such as `index` or `bus <topic>`.
    pub name: String,
    /// How that is.
    pub status: HealthStatus,
    /// In words.
    pub detail: String,
}

/// How something is. Whoever gives it says which checks there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The worst of the checks.
    pub status: HealthStatus,
    /// The checks.
    pub checks: Vec<HealthCheck>,
}
