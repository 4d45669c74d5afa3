//! How a figure is taken: all cases of a group in turn, round after round, so that a drifting machine drifts for all
//! of them; a ratio is taken within its round, and what is reported is the median over the rounds.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

/// What goes wrong in a benchmark ends it with a message.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What one run of one case gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// How many units of work were done (records, opens, seeks).
    pub(crate) units: u64,
    /// In which time.
    pub(crate) elapsed: Duration,
    /// The latency of single operations, where they were taken.
    pub(crate) latencies: Vec<Duration>,
    /// Other figures by name, such as records per flush.
    pub(crate) extra: Vec<(&'static str, f64)>,
}

impl Sample {
    /// A run of `units` in `elapsed`.
    #[must_use]
    pub(crate) fn new(units: u64, elapsed: Duration) -> Self {
        Self { units, elapsed, ..Self::default() }
    }

    /// With the latencies of its operations.
    #[must_use]
    pub(crate) fn latencies(mut self, latencies: Vec<Duration>) -> Self {
        self.latencies = latencies;
        self
    }

    /// With another figure.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.extra.push((name, value));
        self
    }

    fn rate(&self) -> f64 {
        self.units as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

type Run<'a> = Box<dyn FnMut(&Path) -> Result<Sample> + 'a>;

/// One thing measured.
pub(crate) struct Case<'a> {
    name: &'static str,
    against: Option<&'static str>,
    target: Option<f64>,
    at_least: Option<(&'static str, f64)>,
    run: Run<'a>,
}

impl<'a> Case<'a> {
    /// A baseline, or a figure that stands alone. It gets a fresh empty folder for every run.
    pub(crate) fn new(name: &'static str, run: impl FnMut(&Path) -> Result<Sample> + 'a) -> Self {
        Self { name, against: None, target: None, at_least: None, run: Box::new(run) }
    }

    /// Stated as a ratio to another case of the group.
    #[must_use]
    pub(crate) fn against(mut self, baseline: &'static str) -> Self {
        self.against = Some(baseline);
        self
    }

    /// The ratio that is aimed at.
    #[must_use]
    pub(crate) fn aim(mut self, ratio: f64) -> Self {
        self.target = Some(ratio);
        self
    }

    /// A lower bound aimed at for one of its extra figures.
    #[must_use]
    pub(crate) fn at_least(mut self, figure: &'static str, bound: f64) -> Self {
        self.at_least = Some((figure, bound));
        self
    }
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// The group it belongs to.
    pub(crate) group: String,
    /// What was measured.
    pub(crate) case: String,
    /// Units a second, median.
    pub(crate) rate: f64,
    /// The ratio to its baseline, median of the rounds' ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// The lowest and highest ratio of a round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_range: Option<(f64, f64)>,
    /// Which baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<String>,
    /// The ratio aimed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aim: Option<f64>,
    /// Microseconds, median of the rounds' medians.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<f64>,
    /// Microseconds, median of the rounds' 99th percentiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<f64>,
    /// Other figures, medians.
    pub(crate) extra: Vec<(String, f64)>,
    /// Whether what was aimed at is reached; absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reached: Option<bool>,
}

/// Runs the cases of a group in turn for `rounds` rounds after one that does not count.
///
/// # Errors
/// The first failure of a case.
pub(crate) fn measure(group: &str, rounds: usize, scratch: &Path, cases: Vec<Case<'_>>) -> Result<Vec<Row>> {
    let mut cases = cases;
    let mut samples: Vec<Vec<Sample>> = cases.iter().map(|_| Vec::new()).collect();
    let started = Instant::now();
    for round in 0..=rounds {
        let count = cases.len();
        for turn in 0..count {
            // Another case goes first each round, so that none always follows the same neighbour.
            let at = (turn + round) % count;
            let folder = scratch.join(format!("{round}-{at}"));
            std::fs::create_dir_all(&folder)?;
            let sample = (cases[at].run)(&folder).map_err(|e| format!("{group}: {}: {e}", cases[at].name))?;
            std::fs::remove_dir_all(&folder)?;
            if round > 0 {
                samples[at].push(sample);
            }
        }
        eprint!("\r{group}: round {round}/{rounds}, {:.0} s ", started.elapsed().as_secs_f64());
    }
    eprintln!();
    let rates: Vec<Vec<f64>> = samples.iter().map(|s| s.iter().map(Sample::rate).collect()).collect();
    let rows = cases.iter().enumerate().map(|(at, case)| {
        let baseline = case.against.and_then(|name| cases.iter().position(|c| c.name == name));
        let mut ratios: Vec<f64> =
            baseline.map_or_else(Vec::new, |b| rates[at].iter().zip(&rates[b]).map(|(x, y)| x / y).collect());
        ratios.sort_by(f64::total_cmp);
        let ratio = (!ratios.is_empty()).then(|| median(ratios.clone()));
        let extra = extras(&samples[at]);
        let within = case.at_least.map(|(name, bound)| extra.iter().any(|(n, v)| n == name && *v >= bound));
        let above = case.target.and_then(|aim| ratio.map(|r| r >= aim));
        Row {
            group: group.to_owned(),
            case: case.name.to_owned(),
            rate: median(rates[at].clone()),
            ratio,
            ratio_range: ratios.first().copied().zip(ratios.last().copied()),
            against: case.against.map(str::to_owned),
            aim: case.target,
            p50_us: percentile(&samples[at], 50),
            p99_us: percentile(&samples[at], 99),
            extra,
            reached: match (above, within) {
                (None, None) => None,
                (a, w) => Some(a.unwrap_or(true) && w.unwrap_or(true)),
            },
        }
    });
    Ok(rows.collect())
}

fn extras(samples: &[Sample]) -> Vec<(String, f64)> {
    let names = samples.first().map(|s| s.extra.iter().map(|e| e.0).collect::<Vec<_>>()).unwrap_or_default();
    names
        .into_iter()
        .map(|name| {
            let values = samples.iter().filter_map(|s| s.extra.iter().find(|e| e.0 == name).map(|e| e.1));
            (name.to_owned(), median(values.collect()))
        })
        .collect()
}

fn percentile(samples: &[Sample], percent: usize) -> Option<f64> {
    let per_round: Vec<f64> = samples
        .iter()
        .filter(|s| !s.latencies.is_empty())
        .map(|s| {
            let mut sorted = s.latencies.clone();
            sorted.sort();
            sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e6
        })
        .collect();
    (!per_round.is_empty()).then(|| median(per_round))
}

/// The median; 0 of nothing.
#[must_use]
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let scratch = tempfile::tempdir().unwrap();
        let mut round = 0u64;
        let speeds = std::cell::Cell::new(1u64);
        let base = |_: &Path| {
            round += 1;
            Ok(Sample::new(100, Duration::from_millis(10 * speeds.get())))
        };
        let twice = |_: &Path| {
            let s = Sample::new(100, Duration::from_millis(5 * speeds.get())).with("things", 3.0);
            Ok(s.latencies(vec![Duration::from_micros(7); 10]))
        };
        let rows = measure(
            "g",
            3,
            scratch.path(),
            vec![
                Case::new("base", base),
                Case::new("twice", twice).against("base").aim(1.9).at_least("things", 4.0),
            ],
        )
        .unwrap();
        assert_eq!(round, 4, "one round to warm up, three that count");
        assert!((rows[1].ratio.unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(rows[1].reached, Some(false), "the bound on `things` is not kept");
        assert_eq!(rows[1].p99_us, Some(7.0));
        assert_eq!(rows[0].reached, None);
    }
}
