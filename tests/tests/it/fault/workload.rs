//! What the process does until it dies.

use eb_testkit::Rng;

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// One record: key, bytes of padding.
    Publish(u8, usize),
    /// Several in one call.
    Batch(Vec<(u8, usize)>),
    /// Several calls at once.
    Together(Vec<(u8, usize)>),
    /// Everything, through the bus's own reader.
    Read,
    /// Everything, by another process.
    ReadOutside,
    /// The publisher is closed; the next publish opens a new one.
    Close,
    /// Everything is dropped without being closed, and opened anew.
    Reopen,
}

/// Keys that fall into both partitions of two.
const KEYS: u8 = 5;

/// Steps that take well below 200 disk operations, with something of everything.
pub(super) fn steps(rng: &mut Rng) -> Vec<Step> {
    // Small ones share a sector, larger ones lie in several, and some are far enough apart for index entries.
    let one = |rng: &mut Rng| {
        let padding = *rng.pick(&[0, 20, 60, 300, 700, 1500, 30_000, 70_000]);
        (rng.range(0..u64::from(KEYS)) as u8, padding)
    };
    // Half of the groups go to one partition.
    let some = |rng: &mut Rng| {
        let key = rng.chance(50).then(|| rng.range(0..u64::from(KEYS)) as u8);
        (0..rng.range(2..6)).map(|_| one(rng)).map(|(any, padding)| (key.unwrap_or(any), padding)).collect()
    };
    let mut steps = vec![Step::Publish(0, 10)];
    for _ in 0..rng.range(7..11) {
        steps.push(match rng.range(0..12) {
            0..5 => {
                let (key, padding) = one(rng);
                Step::Publish(key, padding)
            }
            5..7 => Step::Batch(some(rng)),
            7 => Step::Together(some(rng)),
            8 => Step::Read,
            9 => Step::ReadOutside,
            10 => Step::Close,
            _ => Step::Reopen,
        });
    }
    steps.push(Step::Publish(1, 100));
    steps
}
