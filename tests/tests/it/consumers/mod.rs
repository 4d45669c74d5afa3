//! Consumers as processes, killed at random moments (`SIGKILL`), or stopped past the end of their leases and then let go on (`SIGSTOP`, `SIGCONT`): over
//! the file bus with embedded stores, over the groups of a Redis, and within transactions of Postgres.
//!
//! What would break these suites: a checkpoint that runs ahead of what is finished, a mark before its effect, two holders of one partition,
//! a lease that is never taken over, reading on behind a record that was not finished, an acknowledgement before the mark, a mark or a
//! checkpoint outside the effect's transaction, a holder of an ended lease that goes on committing.

mod on_files;
mod on_postgres;
mod on_redis;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use eb_contract::PublishRecord;
use eb_system_tests::consumers::{EFFECTS, call};
use eb_testkit::process::Spoken;
use eb_testkit::{Budget, Rng};

const PARTITIONS: u32 = 3;
const KEYS: u64 = 9;
/// Before the world is looked at again: those who look all the time take the machine from those who are to get on.
const LOOK: Duration = Duration::from_millis(5);
/// How long consumers may bring about nothing at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where consumers work: a bus, their stores, and what they did.
trait World {
    /// Publishes records, all ACKed.
    fn publish(&mut self, records: Vec<PublishRecord>);
    /// Which of its worlds a child is told to be in.
    fn arguments(&self) -> Vec<String>;
    fn root(&self) -> &Path;
    /// The calls of each key, in the order of their effects.
    fn effects(&self) -> BTreeMap<String, Vec<u64>>;
    /// Whether the consumers have come to the head, for good.
    fn finished(&self) -> bool;
    fn close(&mut self) {}
}

/// The effects that were appended to the file.
fn appended(root: &Path) -> BTreeMap<String, Vec<u64>> {
    let text = std::fs::read_to_string(root.join(EFFECTS)).unwrap_or_default();
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let (key, call) = line.split_once(' ').expect("a line of an effect is written whole");
        by_key.entry(key.to_owned()).or_default().push(call.parse().unwrap());
    }
    by_key
}

fn total(effects: &BTreeMap<String, Vec<u64>>) -> usize {
    effects.values().map(Vec::len).sum()
}

/// Every call has its effect, first effects are in order, and no more come again than crashes can explain.
fn hold_to(effects: &BTreeMap<String, Vec<u64>>, calls: u64, bound: u64) -> Result<u64, String> {
    let mut again = 0;
    for key in 0..KEYS {
        let got = effects.get(&format!("k{key}")).cloned().unwrap_or_default();
        let mut firsts = Vec::new();
        for n in &got {
            if firsts.contains(n) { again += 1 } else { firsts.push(*n) }
        }
        let all: Vec<u64> = (0..calls).collect();
        if firsts != all {
            return Err(format!("key {key}: {} of {calls} calls, or not in order: {firsts:?}", firsts.len()));
        }
    }
    if again > bound {
        return Err(format!("{again} effects came again, the bound is {bound}"));
    }
    Ok(again)
}

/// What a run came to.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    kills: u64,
    stops: u64,
    again: u64,
}

/// Publishes while consumers are started and killed, lets one come to the end, and holds what was done to the promise: every effect, in the order
/// of its key, and again at most `bound(kills, room)` times.
fn killed_again_and_again(
    world: &mut impl World,
    budget: &mut Budget,
    rng: &mut Rng,
    bound: fn(u64, u64) -> u64,
) -> Outcome {
    let seed = budget.seed;
    let (calls, room) = (rng.range(100..400), rng.range(8..120));
    let consumer = |world: &dyn World, seed: u64| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-consumer"));
        command.arg(world.root()).arg(room.to_string()).arg(seed.to_string()).args(world.arguments());
        Spoken::spawn(&mut command).expect("the consumer starts")
    };
    let mut workers = vec![consumer(world, rng.next_u64())];
    // Those that are stopped, and until when: longer than their leases last.
    let mut stopped: Vec<(Spoken, Instant)> = Vec::new();
    let (mut published, mut kills, mut stops) = (0, 0, 0);
    while published < calls {
        let more = rng.range(5..60).min(calls - published);
        let batch =
            (published..published + more).flat_map(|n| (0..KEYS).map(move |k| call(&format!("k{k}"), n)));
        world.publish(batch.collect());
        published += more;
        // So many effects more, or a moment: kills hit starts and take-overs, too.
        let patience = Instant::now() + Duration::from_millis(rng.range(0..700));
        let wanted = total(&world.effects()) + rng.index(200);
        while Instant::now() < patience && total(&world.effects()) < wanted {
            std::thread::sleep(LOOK);
        }
        if rng.chance(40) && !workers.is_empty() {
            let words = workers.swap_remove(rng.index(workers.len())).kill().unwrap();
            assert!(words.errors.is_empty(), "seed {seed}: {}", words.errors);
            kills += 1;
        } else if rng.chance(60) && !workers.is_empty() {
            let worker = workers.swap_remove(rng.index(workers.len()));
            signal(&worker, "-STOP");
            stopped.push((worker, Instant::now() + Duration::from_millis(rng.range(450..900))));
            stops += 1;
        }
        for (worker, _) in stopped.extract_if(.., |(_, until)| *until <= Instant::now()) {
            signal(&worker, "-CONT");
            workers.push(worker);
        }
        if workers.len() < 3 && (rng.chance(60) || workers.is_empty()) {
            workers.push(consumer(world, rng.next_u64()));
        }
    }
    world.close();
    for (worker, until) in stopped {
        while Instant::now() < until {
            std::thread::yield_now();
        }
        signal(&worker, "-CONT");
        workers.push(worker);
    }
    if workers.is_empty() {
        workers.push(consumer(world, rng.next_u64()));
    }
    // However slow the machine is, they get on.
    let (mut done, mut got_on) = (total(&world.effects()), Instant::now());
    while !world.finished() {
        let now = total(&world.effects());
        if now > done {
            (done, got_on) = (now, Instant::now());
        }
        assert!(
            got_on.elapsed() < PATIENCE,
            "seed {seed}: the consumers do not get to the end: {:?}",
            world.effects()
        );
        std::thread::sleep(LOOK);
    }
    for worker in workers {
        let words = worker.kill().unwrap();
        assert!(words.errors.is_empty(), "seed {seed}: {}", words.errors);
    }
    let again = hold_to(&world.effects(), calls, bound(kills + stops, room));
    Outcome { kills, stops, again: again.unwrap_or_else(|broken| panic!("seed {seed}: {broken}")) }
}

/// The call that aborts the process of whoever handles it, and what its letter is called.
const DEADLY: (&str, u64) = ("k4", 13);

/// Publishes one event that aborts its process, between others, and starts workers until they have come to the end, killing some beside. That one
/// must be a dead letter then, and no other; `letters` are the events of all there are.
fn held_up_by_a_deadly_event<W: World>(
    mut world: W,
    seed: u64,
    letters: fn(&W) -> Vec<String>,
    bound: fn(u64, u64) -> u64,
) {
    let mut rng = Rng::new(seed);
    let (calls, kills) = (20, rng.range(2..8));
    let (key, deadly) = DEADLY;
    let all = (0..calls).flat_map(|n| (0..KEYS).map(move |k| call(&format!("k{k}"), n)));
    world.publish(all.collect());
    world.close();
    let (mut workers, mut deaths, mut killed): (Vec<Spoken>, u64, u64) = (Vec::new(), 0, 0);
    // Machines are busy with other things, too; each death costs a lease.
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut next = Instant::now() + Duration::from_millis(rng.range(100..900));
    while !world.finished() {
        assert!(
            Instant::now() < deadline,
            "seed {seed}: {deaths} died, {killed} were killed: {:?}",
            letters(&world)
        );
        while workers.len() < 2 {
            let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-consumer"));
            command.arg(world.root()).args(["60", &rng.next_u64().to_string()]).args(world.arguments());
            command.env("EB_TEST_DEADLY", format!("{key} {deadly}"));
            workers.push(Spoken::spawn(&mut command).expect("the consumer starts"));
        }
        let kill = (killed < kills && Instant::now() > next).then(|| rng.index(workers.len()));
        let mut alive = Vec::new();
        for (n, mut worker) in workers.drain(..).enumerate() {
            let mut dies = false;
            while let Some(line) = worker.line_within(Duration::from_millis(2)) {
                dies |= line == "dying";
            }
            if !dies && kill != Some(n) {
                alive.push(worker);
                continue;
            }
            let words = worker.kill().unwrap();
            assert!(words.errors.is_empty(), "seed {seed}: {}", words.errors);
            let last = dies || words.lines.iter().any(|line| line == "dying");
            (deaths, killed) = (deaths + u64::from(last), killed + u64::from(!last));
            next = Instant::now() + Duration::from_millis(rng.range(100..900));
        }
        workers = alive;
    }
    drop(workers);
    println!("seed {seed}: {deaths} died, {killed} were killed");
    assert_eq!(
        letters(&world),
        [format!("{key}-{deadly}")],
        "seed {seed}: {deaths} died, {killed} were killed"
    );
    let mut effects = world.effects();
    let held_up = effects.get_mut(key).expect("other events of the key");
    assert!(!held_up.contains(&deadly), "seed {seed}: it has no effect");
    let place = held_up.iter().position(|n| *n > deadly).expect("the key goes on behind it");
    held_up.insert(place, deadly);
    let bound = bound(deaths + killed, 60);
    hold_to(&effects, calls, bound).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
}

fn deadly_until_the_budget_ends<W: World>(
    new: impl Fn() -> W,
    letters: fn(&W) -> Vec<String>,
    bound: fn(u64, u64) -> u64,
) {
    let mut budget = Budget::new(1, Duration::ZERO, 20);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    while budget.again() {
        held_up_by_a_deadly_event(new(), rng.next_u64(), letters, bound);
    }
}

fn signal(worker: &Spoken, signal: &str) {
    let sent = Command::new("kill").args([signal, &worker.pid().to_string()]).status();
    assert!(sent.expect("there is a `kill`").success(), "the worker has ended by itself");
}

/// A lease may also be lost on a machine that is busy with other things: one for each kill or stop is allowed for.
fn at_least_once(lost: u64, room: u64) -> u64 {
    (2 * lost + 1) * u64::from(PARTITIONS) * room
}

fn until_the_budget_ends<W: World>(mut budget: Budget, new: impl Fn() -> W, bound: fn(u64, u64) -> u64) {
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let (mut kills, mut stops, mut again) = (0, 0, 0);
    while budget.again() {
        let outcome = killed_again_and_again(&mut new(), &mut budget, &mut rng, bound);
        kills += outcome.kills;
        stops += outcome.stops;
        again += outcome.again;
    }
    println!(
        "{} logs, {kills} consumers killed, {stops} stopped past their leases, {again} effects came again",
        budget.cycles()
    );
}
