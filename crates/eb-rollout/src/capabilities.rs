//! What a bus made of two promises: what both do.

use eb_contract::{Capabilities, Durability, KeyOrder};

/// `now` is the bus that is primary when the rollout is opened.
pub(crate) fn of(old: &Capabilities, new: &Capabilities, now: &Capabilities) -> Capabilities {
    let mut caps = Capabilities::new("rollout", now.offset_kind);
    caps.durability = match (old.durability, new.durability) {
        (Durability::Process, _) | (_, Durability::Process) => Durability::Process,
        (Durability::Weaker, _) | (_, Durability::Weaker) => Durability::Weaker,
        (Durability::PowerCut, Durability::PowerCut) => Durability::PowerCut,
    };
    caps.key_order = match (old.key_order, new.key_order) {
        (KeyOrder::Strict, KeyOrder::Strict) => KeyOrder::Strict,
        _ => KeyOrder::BestEffort,
    };
    caps.max_envelope_bytes = old.max_envelope_bytes.min(new.max_envelope_bytes);
    caps.max_key_utf16 = match (old.max_key_utf16, new.max_key_utf16) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    caps.max_batch_records = old.max_batch_records.min(new.max_batch_records);
    caps.multi_writer = old.multi_writer && new.multi_writer;
    caps.reopen = old.reopen && new.reopen;
    caps.retention = old.retention || new.retention;
    // Every switch closes partitions and opens others.
    caps.resharding = true;
    caps.unknown_outcomes = true;
    // What a bus that was left has not shown until its epoch's end was settled is no part of the log.
    let settles = |caps: &Capabilities| caps.probe_settles || !caps.multi_writer;
    caps.probe_settles = settles(old) && settles(new);
    caps.seek_by_time = old.seek_by_time && new.seek_by_time;
    caps.notes = vec![
        format!("A rollout from {} to {}: offsets are of the bus that holds the record.", old.backend, new.backend),
        "A publish during a switch waits for it; one that was under way may fail without effect, or be unknown while a bus that was left cannot be reached.".to_owned(),
    ];
    for (which, of) in [("old", old), ("new", new)] {
        caps.notes.extend(of.notes.iter().map(|note| format!("The {which} bus ({}): {note}", of.backend)));
    }
    caps
}

#[cfg(test)]
mod tests {
    use eb_contract::OffsetKind;

    use super::*;

    fn bus(multi_writer: bool, probe_settles: bool) -> Capabilities {
        let mut caps = Capabilities::new("a bus", OffsetKind::FileLine);
        (caps.multi_writer, caps.probe_settles) = (multi_writer, probe_settles);
        caps
    }

    #[test]
    fn a_probe_settles_only_where_it_does_on_both_buses() {
        let settles = |old: Capabilities, new: Capabilities| of(&old, &new, &old).probe_settles;
        let (files, redis, kinesis) = (bus(false, false), bus(true, true), bus(true, false));
        // Of one writer everything is settled as soon as it answers.
        assert!(settles(files.clone(), redis.clone()) && settles(redis.clone(), redis.clone()));
        assert!(!settles(files.clone(), kinesis.clone()) && !settles(kinesis.clone(), redis.clone()));
        assert!(!settles(redis, kinesis));
    }
}
