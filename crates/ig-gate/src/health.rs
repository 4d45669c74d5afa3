//! How the gate is, by trying what it needs.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eb_contract::{ErrorKind, Health, HealthCheck, HealthStatus, Result};

use crate::core::Core;

/// How long a probe may take.
const PROBE: Duration = Duration::from_secs(5);
/// For how long a failure counts as recent.
const RECENT: Duration = Duration::from_secs(60);

/// Checks `gate` (when closed), `bus <topic>`, `index`, `quarantine`, `index lag`, `blocked keys`, `recent errors`.
pub(crate) async fn check(core: &Core) -> Health {
    let mut checks = Vec::new();
    if core.is_closed() {
        checks.push(of("gate", HealthStatus::Failing, "closed"));
    }
    for topic in core.policy.streams() {
        let probe = core.publisher.probe(&topic);
        checks.push(probed(format!("bus {topic}"), HealthStatus::Failing, probe).await);
    }
    checks.push(probed("index".to_owned(), HealthStatus::Failing, core.index.probe()).await);
    // Good events are admitted without it.
    checks.push(probed("quarantine".to_owned(), HealthStatus::Degraded, core.quarantine.probe()).await);
    checks.push(lag(core));
    checks.push(blocked(core));
    let recent = core.last_error.lock().clone().filter(|(at, _)| at.elapsed() < RECENT);
    checks.push(match recent {
        Some((at, error)) => {
            of("recent errors", HealthStatus::Degraded, format!("{} s ago: {error}", at.elapsed().as_secs()))
        }
        None => of("recent errors", HealthStatus::Ready, "none"),
    });
    let status = checks.iter().map(|c| c.status).max().unwrap_or(HealthStatus::Ready);
    Health { status, checks }
}

fn of(name: impl Into<String>, status: HealthStatus, detail: impl Into<String>) -> HealthCheck {
    HealthCheck { name: name.into(), status, detail: detail.into() }
}

async fn probed(name: String, worst: HealthStatus, probe: impl Future<Output = Result<()>>) -> HealthCheck {
    match tokio::time::timeout(PROBE, probe).await {
        Ok(Ok(())) => of(name, HealthStatus::Ready, "answers"),
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::Throttled { .. }) => {
            of(name, HealthStatus::Degraded, error.to_string())
        }
        Ok(Err(error)) => of(name, worst, error.to_string()),
        Err(_) => of(name, worst, format!("no answer within {} s", PROBE.as_secs())),
    }
}

fn lag(core: &Core) -> HealthCheck {
    let (lag, max) = (core.progress.lag(), core.index.max_lag());
    let status = if core.fit().is_err() && lag >= max {
        HealthStatus::Failing
    } else if lag > max / 2 {
        HealthStatus::Degraded
    } else {
        HealthStatus::Ready
    };
    of("index lag", status, format!("{lag} records of {max}"))
}

fn blocked(core: &Core) -> HealthCheck {
    let (unknown, unindexed) = {
        let blocked = core.blocked.lock();
        (blocked.unknown.len(), blocked.unindexed.len())
    };
    let status = match core.blocked_count.load(Ordering::Relaxed) {
        0 => HealthStatus::Ready,
        n if n >= core.config.max_waiting => HealthStatus::Failing,
        _ => HealthStatus::Degraded,
    };
    of("blocked keys", status, format!("{unknown} by unknown outcomes, {unindexed} by the index"))
}
