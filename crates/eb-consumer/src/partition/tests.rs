use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use eb_contract::{BusIncarnation, ConsumerName, Offset, OffsetKind};
use proptest::prelude::*;

use super::*;
use crate::retry::Backoff;
use crate::testing::{event, record};

const SECOND: Duration = Duration::from_secs(1);

fn next(n: u64) -> Cut {
    Cut::Next(Offset::from_u64(OffsetKind::MemoryIndex, n))
}

fn rules(retry: RetryPolicy) -> Rules {
    Rules { retry, in_order: true, by_event: false, read_ahead: 0 }
}

fn fixed(max_attempts: Option<u32>, after_max: AfterMax) -> RetryPolicy {
    RetryPolicy {
        backoff: Backoff::Fixed { delay: SECOND },
        jitter_percent: 0,
        max_attempts,
        after_max,
        max_crashes: None,
        ..RetryPolicy::default()
    }
}

fn partition(rules: Rules) -> Partition {
    let whose = Whose {
        consumer: ConsumerName::new("ledger").unwrap(),
        incarnation: BusIncarnation::new("i1").unwrap(),
    };
    Partition::new(whose, rules, next(0), HashSet::new())
}

/// Events with these keys, from offset `from` on.
fn batch(from: u64, keys: &[&str]) -> Batch {
    let items = keys
        .iter()
        .zip(from..)
        .map(|(key, n)| (Arc::new(Item::read(event(n, key, &format!("e{n}")))), Seen::No));
    Batch { items: items.collect(), next: next(from + keys.len() as u64), caught_up_at: None }
}

struct Play {
    p: Partition,
    now: Instant,
}

impl Play {
    fn new(p: Partition) -> Self {
        Self { p, now: Instant::now() }
    }

    fn turns(&mut self) -> Vec<Turn> {
        std::iter::from_fn(|| self.p.next_turn(Timestamp::EPOCH)).collect()
    }

    fn settle(&mut self, turn: &Turn, outcome: Outcome) -> Consequence {
        self.p.settle(turn, outcome, self.now, Timestamp::EPOCH, 0.0)
    }

    fn bury_all(&mut self) -> Vec<NewDeadLetter> {
        let letters = self.p.take_letters(100);
        letters.iter().for_each(|(seq, letter)| self.p.letter_kept(*seq, letter));
        letters.into_iter().map(|(_, l)| l).collect()
    }

    fn commit(&mut self) -> Step {
        let step = self.p.step();
        self.p.recorded(&step);
        step
    }
}

fn offsets(turns: &[Turn]) -> Vec<u64> {
    turns.iter().map(|t| t.item.record.eb_ref.offset.as_u64().unwrap()).collect()
}

fn later() -> Outcome {
    Outcome::Later(vec!["no".to_owned()])
}

fn never() -> Outcome {
    Outcome::Never(DeadReason::Permanent, vec!["never".to_owned()])
}

#[test]
fn a_record_waits_for_the_earlier_ones_of_its_key_and_for_no_other() {
    let mut play = Play::new(partition(rules(fixed(None, AfterMax::Halt))));
    play.p.admit(batch(0, &["a", "b", "a", "b", "a"]));
    let first = play.turns();
    assert_eq!(offsets(&first), [0, 1]);
    play.settle(&first[0], later());
    play.settle(&first[1], Outcome::Handled);
    let second = play.turns();
    assert_eq!(offsets(&second), [3], "key `b` goes on while `a` is being retried");
    play.settle(&second[0], Outcome::Handled);
    assert_eq!(play.commit().cut, next(0), "the cut is the lowest unfinished one");
    assert!(play.turns().is_empty());
    play.now += SECOND;
    play.p.wake(play.now);
    for (offset, attempt, cut) in [(0, 2, 2), (2, 1, 4), (4, 1, 5)] {
        let turns = play.turns();
        assert_eq!((offsets(&turns), turns[0].attempt), (vec![offset], attempt));
        play.settle(&turns[0], Outcome::Handled);
        assert_eq!(play.commit().cut, next(cut));
    }
    assert!(play.p.is_empty());
}

#[test]
fn a_dead_letter_finishes_its_record_only_once_it_is_durable() {
    let mut play = Play::new(partition(rules(fixed(Some(2), AfterMax::DeadLetter))));
    play.p.admit(batch(0, &["a", "a"]));
    let turn = play.turns().remove(0);
    assert_eq!(play.settle(&turn, later()), Consequence::RetryAt(play.now + SECOND));
    play.now += SECOND;
    play.p.wake(play.now);
    let turn = play.turns().remove(0);
    assert_eq!(play.settle(&turn, later()), Consequence::DeadLetter(DeadReason::AttemptsExhausted));
    let mut letters = play.p.take_letters(10);
    assert_eq!((letters[0].1.attempts, letters[0].1.failures.len(), letters[0].1.parks_key), (2, 2, false));
    let (seq, letter) = letters.remove(0);
    play.p.letter_refused(seq, letter);
    assert!(play.turns().is_empty(), "its key waits for the letter");
    assert_eq!(play.commit().cut, next(0));
    assert_eq!(play.bury_all().len(), 1);
    assert_eq!(offsets(&play.turns()), [1]);
    let step = play.commit();
    assert_eq!((step.cut, step.marks.len()), (next(1), 1));
}

#[test]
fn a_parked_key_sends_its_records_behind_the_letter_and_other_keys_go_on() {
    let mut play = Play::new(partition(rules(fixed(Some(1), AfterMax::DeadLetterAndPark))));
    play.p.admit(batch(0, &["a", "b", "a", "a"]));
    let turns = play.turns();
    play.settle(&turns[0], later());
    play.settle(&turns[1], Outcome::Handled);
    assert!(play.bury_all()[0].parks_key);
    for _ in 0..2 {
        assert!(play.turns().is_empty(), "nothing of the key is handled");
        let letter = play.bury_all().remove(0);
        assert_eq!((letter.reason, letter.attempts, letter.parks_key), (DeadReason::KeyParked, 0, true));
    }
    assert_eq!(play.commit().cut, next(4));
    play.p.end_parked_look(HashSet::new());
    assert!(play.p.has_parked(), "an answer from before the key was parked does not count");
    play.p.begin_parked_look();
    play.p.end_parked_look(HashSet::new());
    play.p.admit(batch(4, &["a"]));
    assert_eq!(offsets(&play.turns()), [4], "a resolved key is handled again");
}

#[test]
fn a_halted_partition_handles_nothing_more_and_keeps_its_cut() {
    let mut play = Play::new(partition(rules(fixed(Some(1), AfterMax::Halt))));
    play.p.admit(batch(0, &["a", "b", "c"]));
    let turns: Vec<_> = play.turns().into_iter().take(2).collect();
    play.settle(&turns[0], Outcome::Handled);
    assert_eq!(play.settle(&turns[1], later()), Consequence::Halted);
    assert!(play.p.halted().is_some_and(|why| why.contains("t/0@1") && why.contains("no")));
    assert_eq!(play.commit().cut, next(1));
    assert!(!play.p.has_turn() && play.turns().is_empty());
}

#[test]
fn what_cannot_be_decoded_is_a_dead_letter_with_the_reason_and_no_attempt() {
    let mut play = Play::new(partition(rules(fixed(None, AfterMax::Halt))));
    let item = Arc::new(Item::read(record(0, "a", r#"{"event_id":7}"#)));
    play.p.admit(Batch { items: vec![(item, Seen::No)], next: next(1), caught_up_at: None });
    assert!(play.turns().is_empty());
    let letter = play.bury_all().remove(0);
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Undecodable, 0));
    assert!(letter.failures[0].errors[0].contains("event_id"), "{:?}", letter.failures);
}

#[test]
fn a_copy_is_not_handled_also_where_its_original_is_still_on_the_way() {
    let rules = Rules { by_event: true, read_ahead: 2, ..rules(fixed(None, AfterMax::Halt)) };
    let mut play = Play::new(partition(rules));
    let copy = |n| (Arc::new(Item::read(event(n, "a", "same"))), Seen::No);
    play.p.admit(Batch { items: vec![copy(0), copy(1)], next: next(2), caught_up_at: None });
    let turn = play.turns().remove(0);
    play.settle(&turn, Outcome::Handled);
    assert!(play.turns().is_empty());
    let step = play.commit();
    assert_eq!((step.cut, step.marks.len()), (next(2), 1), "the copy is finished without a mark");
    // Asked for before the mark was recorded.
    assert_eq!(play.p.admit(Batch { items: vec![copy(2)], next: next(3), caught_up_at: None }), 1);
    assert!(play.turns().is_empty());
}

#[test]
fn a_rolled_back_transaction_starts_its_records_over_in_order() {
    let mut play = Play::new(partition(rules(fixed(None, AfterMax::Halt))));
    play.p.admit(batch(0, &["a", "b", "a", "b"]));
    let first = play.turns();
    play.settle(&first[0], Outcome::Handled);
    let then = play.turns();
    assert_eq!(offsets(&then), [2]);
    play.settle(&then[0], Outcome::Handled);
    let step = play.p.step();
    assert_eq!(step.cut, next(1));
    play.p.rolled_back(step, &[first[1].seq], Vec::new());
    let again = play.turns();
    assert_eq!(offsets(&again), [0, 1]);
    again.iter().for_each(|t| _ = play.settle(t, Outcome::Handled));
    let rest = play.turns();
    assert_eq!(offsets(&rest), [2, 3]);
    rest.iter().for_each(|t| _ = play.settle(t, Outcome::Handled));
    assert_eq!(play.commit().cut, next(4));
}

#[test]
fn what_was_given_up_behind_a_record_that_is_rolled_back_is_given_up_again_behind_it() {
    let mut play = Play::new(partition(rules(fixed(None, AfterMax::Halt))));
    let bad = Arc::new(Item::read(record(1, "a", r#"{"event_id":7}"#)));
    let (first, last) = (batch(0, &["a"]), batch(2, &["a"]));
    play.p.admit(first);
    play.p.admit(Batch { items: vec![(bad, Seen::No)], next: next(2), caught_up_at: None });
    play.p.admit(last);
    let turn = play.turns().remove(0);
    play.settle(&turn, Outcome::Handled);
    assert!(play.turns().is_empty() && play.p.letters() == 1, "the second cannot be read");
    let step = play.p.step();
    play.p.rolled_back(step, &[], Vec::new());
    assert!(play.p.take_letters(9).is_empty(), "its letter waits, as it does");
    assert_eq!(offsets(&play.turns()), [0], "nothing overtakes the first");
    play.settle(&turn, Outcome::Handled);
    assert!(play.turns().is_empty());
    assert_eq!(play.bury_all().len(), 1);
    assert_eq!(offsets(&play.turns()), [2]);
}

#[test]
fn a_letter_whose_transaction_is_rolled_back_is_written_again_and_its_key_waits() {
    let mut play = Play::new(partition(rules(fixed(Some(1), AfterMax::DeadLetterAndPark))));
    play.p.admit(batch(0, &["a", "a", "b"]));
    for turn in play.turns() {
        let outcome = if offsets(std::slice::from_ref(&turn)) == [0] { later() } else { Outcome::Handled };
        play.settle(&turn, outcome);
    }
    for _ in 0..2 {
        let letters = play.p.take_letters(9);
        assert_eq!((letters.len(), letters[0].1.attempts), (1, 1));
        play.p.bury(letters[0].0);
        let step = play.p.step();
        assert_eq!((step.cut, step.marks.len()), (next(1), 2), "the letter's mark goes with it");
        play.p.rolled_back(step, &[], letters);
        assert_eq!(play.p.letters(), 1);
        let again = play.turns();
        assert_eq!(offsets(&again), [2], "the key waits, the other one starts over");
        play.settle(&again[0], Outcome::Handled);
    }
    let letters = play.p.take_letters(9);
    play.p.bury(letters[0].0);
    let step = play.p.step();
    play.p.letters_stored(letters.iter().map(|(_, letter)| letter));
    play.p.recorded(&step);
    assert!(play.turns().is_empty(), "parked from here on");
    assert_eq!((play.bury_all()[0].reason, play.commit().cut), (DeadReason::KeyParked, next(3)));
}

#[test]
fn being_caught_up_is_committed_only_when_everything_read_is_finished() {
    let mut play = Play::new(partition(rules(fixed(None, AfterMax::Halt))));
    play.p.admit(Batch { caught_up_at: Some(Timestamp::MAX), ..batch(0, &["a", "b"]) });
    let turns = play.turns();
    play.settle(&turns[1], Outcome::Handled);
    assert_eq!(play.p.step().caught_up_at, None);
    play.settle(&turns[0], Outcome::Handled);
    assert_eq!(play.p.step().caught_up_at, Some(Timestamp::MAX));
}

/// One move in the history of a partition.
#[derive(Debug, Clone)]
enum Move {
    Read(usize),
    Begin,
    End { which: usize, outcome: u8 },
    Tick,
    Letters { keep: bool },
    StepBegins,
    StepEnds { durable: bool },
    Crash,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        3 => (1usize..6).prop_map(Move::Read),
        6 => Just(Move::Begin),
        6 => (any::<usize>(), any::<u8>()).prop_map(|(which, outcome)| Move::End { which, outcome }),
        2 => Just(Move::Tick),
        2 => any::<bool>().prop_map(|keep| Move::Letters { keep }),
        3 => Just(Move::StepBegins),
        3 => any::<bool>().prop_map(|durable| Move::StepEnds { durable }),
        1 => Just(Move::Crash),
    ];
    proptest::collection::vec(one, 0..200)
}

/// What outlives a crash, and what the handler saw.
#[derive(Default)]
struct World {
    cut: u64,
    marks: BTreeSet<u64>,
    letters: BTreeSet<u64>,
    parked: HashSet<PartitionKey>,
    firsts: Vec<u64>,
}

fn at(item: &Item) -> u64 {
    item.record.eb_ref.offset.as_u64().unwrap()
}

proptest! {
    #[test]
    fn every_record_is_finished_in_order_of_its_key_and_twice_only_across_a_crash(
        keys in proptest::collection::vec(0u8..4, 1..40),
        moves in moves(),
        after in prop_oneof![Just(AfterMax::DeadLetter), Just(AfterMax::DeadLetterAndPark)],
    ) {
        let log: Vec<_> = keys.iter().zip(0..).map(|(k, n)| Arc::new(Item::read(event(n, &format!("k{k}"), &format!("e{n}"))))).collect();
        let mut world = World::default();
        let open = |world: &World| {
            let mut p = partition(rules(fixed(Some(3), after)));
            p.window = window::Window::new(next(world.cut), true);
            p.end_parked_look(world.parked.clone());
            (Play::new(p), world.cut as usize)
        };
        let (mut play, mut read) = open(&world);
        let mut running: Vec<Turn> = Vec::new();
        let mut step: Option<Step> = None;
        // The moves, then enough of the same to come to an end.
        let ending = std::iter::repeat_n([Move::Read(5), Move::Begin, Move::End { which: 0, outcome: 0 }, Move::Tick, Move::Letters { keep: true }, Move::StepBegins, Move::StepEnds { durable: true }], 60 + 8 * keys.len());
        for m in moves.into_iter().chain(ending.flatten()) {
            match m {
                Move::Read(n) => {
                    let upto = (read + n).min(log.len());
                    let items = log[read..upto].iter().map(|i| {
                        (i.clone(), if world.marks.contains(&at(i)) { Seen::Here } else { Seen::No })
                    });
                    play.p.admit(Batch { items: items.collect(), next: next(upto as u64), caught_up_at: None });
                    read = upto;
                }
                Move::Begin => {
                    if let Some(turn) = play.p.next_turn(Timestamp::EPOCH) {
                        let n = at(&turn.item);
                        prop_assert!(running.iter().all(|t| t.item.record.partition_key != turn.item.record.partition_key), "one at a time of a key");
                        running.push(turn);
                        if !world.firsts.contains(&n) {
                            world.firsts.push(n);
                        }
                    }
                }
                Move::End { which, outcome } => {
                    if running.is_empty() { continue }
                    let turn = running.swap_remove(which % running.len());
                    let outcome = match outcome % 5 {
                        0..=2 => Outcome::Handled,
                        3 => later(),
                        _ => never(),
                    };
                    play.settle(&turn, outcome);
                }
                Move::Tick => {
                    play.now += SECOND;
                    play.p.wake(play.now);
                }
                Move::Letters { keep } => {
                    for (seq, letter) in play.p.take_letters(3) {
                        if keep {
                            world.letters.insert(letter.record.eb_ref.offset.as_u64().unwrap());
                            if letter.parks_key { world.parked.insert(letter.record.partition_key.clone()); }
                            play.p.letter_kept(seq, &letter);
                        } else {
                            play.p.letter_refused(seq, letter);
                        }
                    }
                }
                Move::StepBegins => {
                    if step.is_none() { step = Some(play.p.step()); }
                }
                Move::StepEnds { durable } => {
                    let Some(s) = step.take() else { continue };
                    if !durable { step = Some(s); continue }
                    let cut = s.cut.offset().and_then(Offset::as_u64).unwrap();
                    prop_assert!(cut >= world.cut, "a cut never goes back");
                    world.cut = cut;
                    for mark in &s.marks {
                        let n = mark.offset.as_u64().unwrap();
                        prop_assert!(world.marks.insert(n), "{n} was marked twice: it was handled again without a crash");
                    }
                    for n in 0..cut {
                        prop_assert!(world.marks.contains(&n), "{n} is behind the cut and was not finished");
                    }
                    play.p.recorded(&s);
                }
                Move::Crash => {
                    running.clear();
                    step = None;
                    (play, read) = open(&world);
                }
            }
        }
        prop_assert_eq!(world.cut, log.len() as u64);
        prop_assert!(play.p.is_empty());
        // Whoever was begun first was published first, within a key.
        let mut last: BTreeMap<u8, u64> = BTreeMap::new();
        for n in world.firsts {
            if let Some(before) = last.insert(keys[n as usize], n) {
                prop_assert!(before < n, "{n} was begun before {before}");
            }
        }
    }
}
