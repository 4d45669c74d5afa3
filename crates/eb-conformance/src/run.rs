//! Running a scenario on a runtime of its own.

use std::future::Future;
use std::time::Duration;

use crate::{Failure, Outcome, Plan, Scenario, Verdict};

pub(crate) fn find<C>(scenarios: &'static [Scenario<C>], name: &str) -> &'static Scenario<C> {
    match scenarios.iter().find(|s| s.name == name) {
        Some(scenario) => scenario,
        None => panic!("there is no scenario `{name}`"),
    }
}

pub(crate) fn on_runtime(
    lacks: Option<String>,
    deadline: Duration,
    work: impl Future<Output = Outcome>,
) -> Verdict {
    if let Some(why) = lacks {
        return Verdict::NotRun(why);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Verdict::Failed(Failure::new(format!("no runtime: {e}"))),
    };
    let outcome = runtime.block_on(async {
        match tokio::time::timeout(deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new(format!("nothing came of it in {deadline:?}: it hangs"))),
        }
    });
    // A hanging call of the backend must not hang the test as well.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(()) => Verdict::Passed,
        Err(failure) => Verdict::Failed(failure),
    }
}

/// The end of a generated test: prints what was not run, panics on a failure.
#[doc(hidden)]
pub fn report(name: &str, verdict: Verdict) {
    match verdict {
        Verdict::Passed => {}
        Verdict::NotRun(why) => println!("not run: {name}: {why}"),
        Verdict::Failed(failure) => panic!("{name}: {failure}"),
    }
}

/// Prints the plan of a suite, which must run something.
#[doc(hidden)]
pub fn print_plan(plan: &Plan) {
    println!("{plan}");
    assert!(plan.not_run().len() < plan.scenarios.len(), "no scenario is run");
}
