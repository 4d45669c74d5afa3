//! What became of a record whose ACK came after the end of a lease.

use eb_contract::{EbRef, Offset, Result, Topic};
use tokio::time::Instant;

use crate::chain::logical;
use crate::error::{behind_the_end, unresolved};
use crate::shared::Shared;
use crate::state::{EndState, Part, Segment, State};
use crate::switch;

/// Where a record lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In this segment of its topic.
    In(usize),
    /// In no segment, now and for ever.
    Outside,
    /// That cannot be told yet.
    Undecided,
}

/// Where a record lies that was sent in `epoch` and is in its bus's log at this offset since before `state` was asked for.
pub(crate) fn verdict(state: &State, topic: &Topic, epoch: u64, partition: u32, offset: &Offset) -> Verdict {
    if state.epoch == epoch && !state.is_active() {
        return Verdict::Undecided;
    }
    let Some(chain) = state.topics.get(topic) else {
        return if state.epoch == epoch && state.is_implicit() { Verdict::In(0) } else { Verdict::Outside };
    };
    let Some(sent) = chain.iter().position(|s| s.epoch == epoch) else {
        return Verdict::Outside;
    };
    let side = chain[sent].side;
    for (at, segment) in chain.iter().enumerate().skip(sent).filter(|(_, s)| s.side == side) {
        match within(segment, partition, offset) {
            // A segment that is open, and being closed: its end is not known.
            Some(true) if segment.end == EndState::Open && !state.is_active() => return Verdict::Undecided,
            Some(true) => return Verdict::In(at),
            Some(false) => {}
            None => return Verdict::Undecided,
        }
    }
    Verdict::Outside
}

/// Whether a segment holds the record; `None` while its end is pending.
fn within(segment: &Segment, partition: u32, offset: &Offset) -> Option<bool> {
    let part: Option<&Part> = segment.part(partition);
    if segment.excluded.contains(&partition) || part.is_some_and(|p| p.start.is_before(offset) == Some(false))
    {
        return Some(false);
    }
    match segment.end {
        EndState::Open => Some(true),
        EndState::Pending => None,
        EndState::Settled => {
            Some(part.and_then(|p| p.end).is_some_and(|end| end.is_before(offset) == Some(false)))
        }
    }
}

/// Asks the register until it is decided; gives back the record's logical place.
///
/// # Errors
/// See the table of leases in the crate's documentation.
pub(crate) async fn resolve(shared: &Shared, epoch: u64, mut at: EbRef) -> Result<EbRef> {
    let deadline = Instant::now() + shared.config.resolve_within;
    loop {
        // From here on: the record has been in its bus's log before.
        let asked = Instant::now();
        let lease = shared.refresh_since(asked).await;
        if let Ok(lease) = &lease {
            match verdict(&lease.state, &at.topic, epoch, at.partition_id.0, &at.offset) {
                Verdict::In(segment) => {
                    at.partition_id = logical(segment, at.partition_id.0)?;
                    return Ok(at);
                }
                Verdict::Outside => return Err(behind_the_end(&at)),
                // The bus has just answered, so where its epoch ends can be asked.
                Verdict::Undecided => {
                    if lease.state.is_active()
                        && let Err(error) = switch::settle_topic(shared, &at.topic).await
                    {
                        tracing::debug!(%error, topic = %at.topic, "where an epoch ends is not known yet");
                    }
                }
            }
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(match lease {
                Ok(_) => unresolved(&at),
                Err(error) => unresolved(&at).with_source(error),
            });
        }
        let seen = shared.lease();
        shared.changed(&seen, (seen.length() / 4).min(deadline - now)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use eb_contract::{BusIncarnation, Cut, OffsetKind, Timestamp};

    use super::*;
    use crate::state::{Phase, Side, Switching};

    fn offset(n: u64) -> Offset {
        Offset::from_u64(OffsetKind::MemoryIndex, n)
    }

    fn segment(epoch: u64, side: Side, start: u64, end: EndState, end_at: u64) -> Segment {
        let end_cut = (end == EndState::Settled).then(|| Cut::Next(offset(end_at)));
        Segment {
            epoch,
            side,
            incarnation: BusIncarnation::new("life").unwrap(),
            opened_at: Timestamp::EPOCH,
            end,
            partitions: vec![Part {
                id: 0,
                parents: vec![],
                start: Cut::Next(offset(start)),
                end: end_cut,
                last: None,
            }],
            excluded: vec![],
        }
    }

    fn state(phase: Phase, epoch: u64, chain: Vec<Segment>) -> State {
        let mut state = State::initial(["a".to_owned(), "b".to_owned()], 500);
        (state.phase, state.epoch) = (phase, epoch);
        state.topics = BTreeMap::from([(Topic::new("t").unwrap(), chain)]);
        state
    }

    #[test]
    fn a_late_ack_counts_where_its_record_lies() {
        use EndState::{Open, Pending, Settled};
        let topic = Topic::new("t").unwrap();
        let judge = |state: &State, n| verdict(state, &topic, 0, 0, &offset(n));
        let first = segment(0, Side::Old, 0, Settled, 10);
        let away = state(Phase::NewPrimary, 1, vec![first.clone(), segment(1, Side::New, 3, Open, 0)]);
        assert_eq!(judge(&away, 9), Verdict::In(0));
        assert_eq!(judge(&away, 10), Verdict::Outside);
        // The same bus again, from 20 on: what lies between belongs to nobody.
        let third = segment(2, Side::Old, 20, Open, 0);
        let between = segment(1, Side::New, 3, Settled, 5);
        let mut back = state(Phase::Baseline, 2, vec![first, between, third]);
        assert_eq!(judge(&back, 15), Verdict::Outside);
        assert_eq!(judge(&back, 20), Verdict::In(2));
        back.switching = Some(Switching {
            to: Phase::NewPrimary,
            since: Timestamp::EPOCH,
            by: String::new(),
            reason: String::new(),
            urgent: false,
        });
        assert_eq!(judge(&back, 20), Verdict::Undecided);
        assert_eq!(judge(&back, 9), Verdict::In(0));
        let unknown = segment(0, Side::Old, 0, Pending, 0);
        let gone = state(Phase::NewPrimary, 1, vec![unknown, segment(1, Side::New, 3, Open, 0)]);
        assert_eq!(judge(&gone, 9), Verdict::Undecided);
    }
}
