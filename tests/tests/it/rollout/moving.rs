//! Through all phases and back, twice, while everything that can fails.

use std::process::Command;
use std::time::{Duration, Instant};

use eb_contract::Error;
use eb_profile::Platform;
use eb_rollout::{Phase, Side, Status};
use eb_system_tests::rollout::lane_key;
use eb_testkit::process::{LastWords, Spoken};
use eb_testkit::{Budget, Rng};
use tokio::runtime::Runtime;

use super::audit::{Promises, audit, beginnings};
use super::buses::Bus;
use super::place::{PATIENCE, Place, Route};

fn signal(child: &Spoken, name: &str) {
    let done = Command::new("kill").args([name, &child.pid().to_string()]).status().unwrap();
    assert!(done.success());
}

/// A publisher, killed and started again.
struct Publisher {
    name: String,
    /// Where each lane goes on.
    next: Vec<u64>,
    running: Option<Spoken>,
}

#[derive(Debug, Default)]
struct Counts {
    switches: u64,
    publishers_killed: u64,
    publishers_halted: u64,
    consumers_killed: u64,
    buses_gone: u64,
    buses_halted: u64,
    /// Events that the old bus took while the new one was gone after a rollback.
    admitted_without: usize,
    slowest_rollback: Duration,
    /// From the beginning of a rollback to the first receipt from the bus that it leads to.
    longest_gap: Duration,
}

struct Run {
    place: Place,
    runtime: Runtime,
    operator: Option<Platform>,
    publishers: Vec<Publisher>,
    consumer: Option<Spoken>,
    promises: Promises,
    counts: Counts,
    rng: Rng,
    seed: u64,
}

impl Run {
    fn new(route: Route, seed: u64, rng: Rng) -> Self {
        // What is under test here are steps that operators make.
        let place = Place::new(route, "{unavailable_ms: 0, p99_ratio_percent: 0}");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let operator = runtime.block_on(place.open("operator"));
        let names: &[&str] = if route.has_several_publishers() { &["p", "q"] } else { &["p"] };
        let publisher =
            |name: &&str| Publisher { name: (*name).to_owned(), next: beginnings(), running: None };
        let publishers = names.iter().map(publisher).collect();
        let (promises, counts) = (Promises::default(), Counts::default());
        let mut run = Self {
            place,
            runtime,
            operator: Some(operator),
            publishers,
            consumer: None,
            promises,
            counts,
            rng,
            seed,
        };
        for n in 0..run.publishers.len() {
            run.start_publisher(n);
        }
        run.start_consumer();
        run
    }

    fn operator(&self) -> &Platform {
        self.operator.as_ref().expect("until the end")
    }

    fn command(&self, job: &str, runs: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-rollout"));
        command.arg(job).arg(self.place.profile()).arg(self.place.runs(runs));
        command
    }

    fn start_publisher(&mut self, which: usize) {
        let publisher = &self.publishers[which];
        let next: Vec<_> = publisher.next.iter().map(u64::to_string).collect();
        let mut command = self.command("publish", &publisher.name);
        command.arg(&publisher.name).arg(next.join(","));
        self.publishers[which].running = Some(Spoken::spawn(&mut command).expect("the publisher starts"));
    }

    fn effects(&self) -> std::path::PathBuf {
        self.place.folder.path().join("effects")
    }

    fn start_consumer(&mut self) {
        let mut command = self.command("consume", "consumer");
        command.arg(self.effects());
        self.consumer = Some(Spoken::spawn(&mut command).expect("the consumer starts"));
    }

    /// Listens to the publishers for so long.
    fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let mut silent = true;
            for publisher in &mut self.publishers {
                let Some(running) = &mut publisher.running else { continue };
                while let Some(line) = running.line_within(Duration::from_millis(1)) {
                    silent = false;
                    if let Some((lane, n)) = self.promises.hear(&publisher.name, &line) {
                        publisher.next[usize::try_from(lane).unwrap()] = n + 1;
                    }
                    if Instant::now() >= until {
                        return;
                    }
                }
            }
            if silent && Instant::now() >= until {
                return;
            }
        }
    }

    fn until_answered(&mut self, more: usize) {
        let wanted = self.promises.places.len() + more;
        let deadline = Instant::now() + PATIENCE;
        while self.promises.places.len() < wanted {
            assert!(
                Instant::now() < deadline,
                "seed {}: nothing is admitted any more: {}, last: {} in {:?}",
                self.seed,
                self.promises.errors(),
                self.promises.last,
                self.status().state,
            );
            self.listen(Duration::from_millis(5));
        }
    }

    fn heard_last(&mut self, which: usize, words: &LastWords) {
        let publisher = &mut self.publishers[which];
        for line in &words.lines {
            if let Some((lane, n)) = self.promises.hear(&publisher.name, line) {
                publisher.next[usize::try_from(lane).unwrap()] = n + 1;
            }
        }
        assert!(words.errors.is_empty(), "seed {}: {}", self.seed, words.errors);
    }

    fn status(&self) -> Status {
        self.runtime.block_on(Place::status(self.operator()))
    }

    /// Makes the next step, as soon as nothing is missing for it.
    fn forward(&mut self, to: Phase) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let control = self.operator().rollout().unwrap();
            match self.runtime.block_on(control.advance("forward")) {
                Ok(status) => {
                    self.counts.switches += 1;
                    let why = (&status.history, &status.mirror);
                    assert_eq!(status.state.phase, to, "seed {}: {why:?}", self.seed);
                    return;
                }
                Err(error) => {
                    assert!(Instant::now() < deadline, "seed {}: {error}", self.seed);
                    self.listen(Duration::from_millis(50));
                }
            }
        }
    }

    fn back(&mut self, to: Phase) -> (Status, Instant) {
        let began = Instant::now();
        let control = self.operator().rollout().unwrap();
        let done: Result<Status, Error> = self.runtime.block_on(control.rollback(to, "back"));
        let status = done.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        let took = began.elapsed();
        self.counts.slowest_rollback = self.counts.slowest_rollback.max(took);
        self.counts.switches += 1;
        assert_eq!(status.state.phase, to, "seed {}", self.seed);
        (status, began)
    }

    /// Back from a bus that answers.
    fn back_from_one_that_answers(&mut self, to: Phase) {
        let (status, began) = self.back(to);
        self.seen_to_go_on(&status, began);
    }

    /// How long nobody got a receipt from the bus that is primary now.
    fn seen_to_go_on(&mut self, status: &Status, began: Instant) {
        let segments = status.state.topics.values().map(Vec::len).max().unwrap_or(1);
        let newest = u32::try_from(segments - 1).unwrap();
        while self.promises.newest < newest && began.elapsed() < Duration::from_secs(2) {
            self.listen(Duration::from_millis(1));
        }
        if self.promises.newest >= newest {
            self.counts.longest_gap = self.counts.longest_gap.max(began.elapsed());
        }
    }

    fn until_settled(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.status().pending.is_empty() {
            assert!(Instant::now() < deadline, "seed {}: {:?}", self.seed, self.status().state);
            self.listen(Duration::from_millis(50));
        }
    }

    /// A step with a publisher halted across it.
    fn halted_across(&mut self, step: impl FnOnce(&mut Self)) {
        let which = self.rng.index(self.publishers.len());
        if let Some(running) = &self.publishers[which].running {
            signal(running, "-STOP");
        }
        step(self);
        let more = Duration::from_millis(self.rng.range(0..400));
        self.listen(more);
        if let Some(running) = &self.publishers[which].running {
            signal(running, "-CONT");
        }
        self.counts.publishers_halted += 1;
    }

    fn kill_publisher(&mut self) {
        let which = self.rng.index(self.publishers.len());
        if let Some(running) = self.publishers[which].running.take() {
            let words = running.kill().unwrap();
            self.heard_last(which, &words);
            let publisher = &self.publishers[which];
            let under_way = (0..)
                .zip(&publisher.next)
                .map(|(lane, n)| format!("{}-{n}", lane_key(&publisher.name, lane)));
            self.promises.doubted.extend(under_way);
            self.counts.publishers_killed += 1;
        }
        self.start_publisher(which);
    }

    fn kill_consumer(&mut self) {
        if let Some(running) = self.consumer.take() {
            let words = running.kill().unwrap();
            assert!(words.errors.is_empty(), "seed {}: {}", self.seed, words.errors);
            self.counts.consumers_killed += 1;
        }
        self.start_consumer();
    }

    /// Which bus something happens to: the new one, and where the old one is Kinesis at times that.
    fn shaken(&mut self) -> Side {
        let old = self.place.route == Route::KinesisToRedis && self.rng.chance(40);
        if old { Side::Old } else { Side::New }
    }

    fn bus(&mut self, side: Side) -> &mut Bus {
        match side {
            Side::Old => &mut self.place.old,
            Side::New => &mut self.place.new,
        }
    }

    /// Something happens, and is over when this comes back.
    fn disturb(&mut self) {
        match self.rng.range(0..5) {
            0 => {
                let shaken = self.shaken();
                self.bus(shaken).go();
                let time = Duration::from_millis(self.rng.range(50..800));
                self.listen(time);
                self.bus(shaken).come_back();
                self.counts.buses_gone += 1;
            }
            1 => {
                let shaken = self.shaken();
                let halted = self.bus(shaken).halt();
                let time = Duration::from_millis(self.rng.range(200..2_500));
                self.listen(time);
                drop(halted);
                self.counts.buses_halted += 1;
            }
            2 => {
                let shaken = self.shaken();
                // Slow: it goes on for a moment at a time.
                for _ in 0..10 {
                    let halted = self.bus(shaken).halt();
                    self.listen(Duration::from_millis(90));
                    drop(halted);
                    self.listen(Duration::from_millis(15));
                }
                self.counts.buses_halted += 1;
            }
            3 => self.kill_publisher(),
            _ => self.kill_consumer(),
        }
    }

    /// The old bus takes records again, but for the keys whose last record is of unknown outcome on the new one: they wait for it, and
    /// that may be all of them.
    fn without_the_new_bus(&mut self) {
        let (before, until) = (self.promises.places.len(), Instant::now() + Duration::from_millis(1_500));
        while self.promises.places.len() < before + 30 && Instant::now() < until {
            self.listen(Duration::from_millis(20));
        }
        self.counts.admitted_without += self.promises.places.len() - before;
    }

    /// All the way back, in one of several ways.
    fn all_the_way_back(&mut self) {
        match self.rng.range(0..4) {
            0 => self.back_from_one_that_answers(Phase::Baseline),
            1 => {
                for to in [Phase::NewPrimary, Phase::DualWrite, Phase::Baseline] {
                    self.back_from_one_that_answers(to);
                    self.until_answered(20);
                }
            }
            2 => {
                self.place.new.go();
                self.counts.buses_gone += 1;
                self.halted_across(|run| drop(run.back(Phase::Baseline)));
                self.without_the_new_bus();
                self.place.new.come_back();
            }
            _ => {
                let halted = self.place.new.halt();
                self.counts.buses_halted += 1;
                self.listen(Duration::from_millis(100));
                self.back(Phase::Baseline);
                self.without_the_new_bus();
                drop(halted);
            }
        }
        self.until_settled();
    }

    fn there_and_back(&mut self) {
        for to in [Phase::DualWrite, Phase::NewPrimary, Phase::NewOnly] {
            let more = self.rng.index(150) + 20;
            self.until_answered(more);
            if self.rng.chance(70) {
                self.disturb();
            }
            if self.rng.chance(40) {
                self.halted_across(|run| run.forward(to));
            } else {
                self.forward(to);
            }
        }
        self.until_answered(50);
        self.disturb();
        self.all_the_way_back();
    }

    /// Ends in dual_write: both logs hold the same.
    fn finish(mut self) {
        self.until_answered(30);
        self.forward(Phase::DualWrite);
        self.until_answered(100);
        for which in 0..self.publishers.len() {
            if let Some(running) = self.publishers[which].running.take() {
                let words = running.wait().unwrap();
                assert!(words.status.success(), "seed {}: {}", self.seed, words.errors);
                self.heard_last(which, &words);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let control = self.operator().rollout().unwrap();
        loop {
            let readiness = self.runtime.block_on(control.readiness());
            // It rests, which is nothing to wait for here.
            if readiness.as_ref().is_ok_and(|r| r.missing.iter().all(|m| m.contains("rests for"))) {
                break;
            }
            assert!(Instant::now() < deadline, "seed {}: {readiness:?}", self.seed);
        }
        for compared in self.runtime.block_on(control.compare()).unwrap() {
            assert!(compared.is_equal() && compared.digests[0] == compared.digests[1], "{compared:?}");
            assert_eq!(compared.out_of_order, 0, "{compared:?}");
        }
        while {
            let handled = std::fs::read_to_string(self.effects()).unwrap_or_default();
            let done: std::collections::BTreeSet<_> =
                handled.lines().filter_map(|l| Some(l.rsplit_once(' ')?.1.to_owned())).collect();
            !self.promises.places.keys().all(|id| done.contains(id))
        } {
            assert!(Instant::now() < deadline, "seed {}: the consumer does not get to the end", self.seed);
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
        }
        let words = self.consumer.take().expect("it runs").kill().unwrap();
        assert!(words.errors.is_empty(), "seed {}: {}", self.seed, words.errors);
        drop(control);
        let platform = self.operator.take().expect("until here");
        let found = self.runtime.block_on(audit(&self.place, &platform, &self.promises, &self.effects()));
        self.runtime.block_on(platform.close()).unwrap();
        println!(
            "{:?}: {} events ACKed, {} records in {} epochs, {} copies; {} handled; {} refused ({}), {} of unknown outcome; {:?}",
            self.place.route,
            self.promises.places.len(),
            found.records,
            found.epochs + 1,
            found.copies,
            found.handled,
            self.promises.refused,
            self.promises.errors(),
            self.promises.unknown,
            self.counts,
        );
    }
}

fn moves(route: Route, rounds: usize) {
    let mut budget = Budget::new(1, Duration::from_secs(10), 30);
    println!("{route:?} seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    while budget.again() {
        let began = Instant::now();
        let mut run = Run::new(route, budget.seed, rng.fork());
        for _ in 0..rounds {
            run.there_and_back();
        }
        run.finish();
        println!("{route:?} took {:?}", began.elapsed());
    }
}

#[test]
fn from_a_redis_to_another_and_back_every_acked_event_is_where_it_was_promised_and_handled() {
    moves(Route::RedisToRedis, 2);
}

#[test]
fn from_files_to_a_redis_and_back_every_acked_event_is_where_it_was_promised_and_handled() {
    moves(Route::FilesToRedis, 2);
}

#[test]
fn from_files_to_kinesis_and_back_every_acked_event_is_where_it_was_promised_and_handled() {
    moves(Route::FilesToKinesis, 1);
}

#[test]
fn from_kinesis_to_a_redis_and_back_every_acked_event_is_where_it_was_promised_and_handled() {
    moves(Route::KinesisToRedis, 1);
}
