//! A bus made of two: a running system moves from one event bus to another, step by step, and back.
//!
//! [`RolloutBus`] implements the contract's traits over an *old* and a *new* bus of any kind. Publishers, consumers and
//! the gate use it as they use any bus; which of the two takes the records is decided for all processes together, by one
//! [register](eb_contract::stores::RegisterStore).
//!
//! | phase | records go to (the *primary*) | copied to (the *mirror*) | |
//! |---|---|---|---|
//! | baseline | old | | the new bus is not touched |
//! | dual_write | old | new | the old bus's ACK decides; the copy is compared and repaired |
//! | new_primary | new | old | with fallback: the same mirror in reverse |
//! | new_only | new | | |
//!
//! Every step can be taken back, from anywhere, by anybody ([`Control::rollback`]), in about a lease's time, and without copying data.
//!
//! # One log, a chain of epochs
//! The register holds one JSON document ([`State`]). A topic is a **chain of segments**, one for each epoch it has seen:
//! `{epoch, bus, partitions: {start cut, end cut}}`. A segment is the stretch between the cuts in its bus's log; records
//! of that log before the start cut (copies, an earlier epoch) or behind the end cut (what a slow writer still got through) are
//! no part of it.
//!
//! Readers see this as **resharding**: partition `p` of a topic's segment `s` is the logical partition `s · 2¹⁶ + p`; it begins
//! at its start cut, is [`Closed`](eb_contract::ReadState::Closed) at its end cut, and its children are the first partitions of the
//! next segment. Partitions that split or merge within an epoch do so within the segment. So whoever follows resharded
//! partitions (consumers, [`TopicTail`](eb_contract::TopicTail), the gate's recovery) follows the chain and keeps its place across
//! every switch. Segment 0 of a topic keeps the numbers and the incarnation of its bus: positions that were handed out before
//! the rollout stay valid. Offsets stay those of the bus that holds the record, and are of its kind.
//!
//! While nothing was ever switched the document names no topics: every topic of the old bus is there, whole.
//!
//! # Leases
//! Nobody may write to a primary that is no more. A process holds a **lease** on epoch `e` for [`RolloutConfig::lease`]
//! (at most 500 ms) from the moment *before* it asked the register and was told that `e` is active; it asks every third of
//! that, and every tenth while a switch is under way. A publish starts only under a valid lease, and otherwise waits in line (order is fixed at the call). Its ACK is
//! released only if the lease is *still* valid when the bus's ACK is there; otherwise the register is asked again, and:
//!
//! | epoch `e` | the record | answer |
//! |---|---|---|
//! | is active | | ACK |
//! | has ended | lies before the end cut, or within a later segment on that bus | ACK |
//! | has ended | lies behind it | error, no effect, retryable: it is no part of the log and never will be |
//! | is ending, or its end cut is not known yet | | waits; past [`RolloutConfig::resolve_within`] an error, outcome unknown |
//!
//! # Switching
//! 1. `swap(active e) → switching{from e, to}`. From here on nobody's lease is renewed.
//! 2. Wait a lease and a margin, by the switcher's own clock.
//! 3. Read the heads of the outgoing primary (the end cuts) and of the next one (the start cuts).
//! 4. `swap(switching) → active e+1`, with the cuts.
//!
//! Step 1 is refused if anything else happened meanwhile (phase, epoch or mirror are not those that the step was decided on), and so is step 4: the
//! register's version decides. A switcher that dies in between
//! leaves `switching`; whoever sees it for longer than a switch should take finishes it from step 2 (waiting the whole time again).
//! A rollback takes back a planned switch that is still under way by one swap: the former primary is active again, in the same epoch, and the switcher is told.
//! A bus that shows later what it has ACKed ([`SideBus::shows_within`]) is given that time before step 3.
//! A *planned* switch whose outgoing bus does not answer is called off. A *rollback* goes on: the new epoch opens with the
//! end cuts **pending**. (Whether that bus answers at all a rollback finds out during step 2, so that one that hangs costs no time beyond it.) Writers work; readers of the outgoing segment get everything that is settled and then retryable errors, until
//! anybody reaches that bus again, reads its heads and stores them, once, as the end cuts. Until then a key whose publish has an unknown
//! outcome there (or none yet) is refused (`Unavailable`, no effect): no record of it is sent to another bus before
//! that is decided.
//!
//! ## Why no ACK is wrong
//! Let `s` be the moment before a process asked the register, which answered "epoch `e` is active". The answer was given at
//! some `r ≥ s`, so step 1 took effect after `r`, and step 3 reads heads after `s + lease + margin`. An ACK released
//! under that lease was in the bus's log before `s + lease`: its record lies before the head that step 3 reads, which is
//! the end cut. The same holds for a record that a *reader* has read before its lease ended, so readers hand out batches under
//! the same rule and otherwise ask and clip. An ACK that came later is released only by the end cut itself, or by an answer "`e`
//! is active" that was *asked for after* the bus's ACK: then step 1, and so step 3, come later still. Nothing depends
//! on clocks agreeing, only on no clock losing more than the margin (a fifth) against another within one lease. A process that is
//! stopped and continued finds its lease over. *A machine that is suspended with its clock is the limit*: where virtual machines are
//! frozen and thawed, their clock must count that time.
//!
//! **A process that stands still between the check and the write** (SIGSTOP), or whose bytes lie in a socket's buffer: nothing keeps them from landing on a bus that is
//! no longer primary, and nothing has to. The end cut was read after every lease had ended, so they land behind it, in no segment; their ACK finds the lease over and is resolved to an
//! error without effect. The log of a topic is what lies between the cuts, not what lies on its buses.
//!
//! **Order per key.** Records of one publisher go to one primary in the order of the calls, and every record of epoch `e+1` comes
//! after every record of `e` for every reader, whatever the buses do: by the cuts. A record behind its end cut is an error to its publisher.
//! A key whose record is still under way on a bus that was left is refused (`Unavailable`, no effect) until that call has ended: it might land when that bus is primary
//! again, behind what came later.
//! What a bus applies *very* late (a request given up on, that lands when the same bus has become primary again) is a
//! late copy of a record whose outcome was unknown, as the contract allows; switching to a bus that has such outcomes again within
//! [`RolloutConfig::rest`] is refused.
//!
//! # The mirror
//! Two independent writes can part without anybody noticing, so the mirror is a copy **of the log**: one worker at a time
//! among all processes reads the primary's records in order, publishes them to the other bus, reads that bus's log back
//! and compares: every record, key by key, in order. Only then is the pair of cuts (how far both logs agree) stored, in
//! a register of its own. A worker that starts after a crash, or after an unknown outcome, reads the mirror's log from the last such cut first,
//! so it knows what is already there: nothing is left out and nothing copied twice without need.
//!
//! | found in the mirror's log | what it is | then |
//! |---|---|---|
//! | the record that is due | | agreed |
//! | a record that came before | a late copy | counted |
//! | ACKed, and not there | missing | copied again; if it still is not there: a *finding* |
//! | something that was never in the primary's log, in any epoch | differing | a *finding* |
//!
//! [`Control::compare`] reads both logs over the whole mirrored stretch again, with bounded memory ([`MirrorConfig::compare_at_once`]), and
//! must find them equal before the new bus becomes primary.
//!
//! A mirror on a bus that was primary begins when that bus has rested ([`RolloutConfig::rest`]): what was sent to it by somebody who was halted, or given up
//! on, lands behind the end of its epoch, in no log, and must not look like somebody else's. What lands even later does, and is a finding.
//!
//! The worker writes under the lease of its epoch like any writer, and a switch waits for it to rest
//! ([`RolloutConfig::drain`]; a rollback does not). A copy that the mirror's bus takes longer than that to apply, after it has become
//! primary, appears in the log a second time: a late duplicate, never a loss.
//!
//! # Triggers
//! In dual_write and new_primary every process with workers watches ([`Triggers`]) and rolls back on its own, to baseline: a finding; the new bus unavailable for
//! longer than 30 s (its mirroring fails; as primary it does not answer, or every publish to it fails); the 99th percentile of publish latency on the new bus worse than a
//! set ratio to the old one's, and than [`Triggers::p99_floor`], in [`Triggers::p99_windows`] windows in a row with enough samples each. Compared are calls of a
//! publisher up to their answer; of the mirror's calls only those of at most 64 records, since a large batch says nothing about a record. A trigger rolls back only
//! the epoch and the mirror that it was seen in.
//!
//! # Failure cases
//! | what | outcome |
//! |---|---|
//! | the register cannot be reached | leases end; publishes wait in line, then `Unavailable` without effect; readers go on to what they can confirm, then errors. When it is back, all goes on |
//! | the register is lost, or restored from an older copy | whoever has seen more stops: no lease, and `FactsMissing` naming both versions. A process that starts on the older copy cannot know; consumers and gates that were further find their partitions missing, and say so. Keep the register as durable as the logs |
//! | a writer is stopped (SIGSTOP, a long pause) across a switch | its late ACK is resolved by the cuts; its late record, if behind the end cut, is no part of the log |
//! | a switcher dies | another process finishes the switch |
//! | the bus that is left is gone | end cuts pending, see above |
//! | the bus that is switched to is gone | the switch is called off; the former primary goes on |
//! | the mirror's bus is gone | the worker waits and goes on where it stood; lag shows; a trigger, in time |
//! | the mirror's worker dies | another one takes over after [`MirrorConfig::patience`] and finds out what is there |
//! | a topic was made anew under its name on either bus | `WrongIncarnation`, never other records under old positions |
//! | a process starts while an end cut is pending | it works; who must read the whole log gets `Unavailable` until it is settled. So does a gate that starts: what was admitted last lies on the bus that is gone, and admitting without knowing it would admit twice. Gates that are open go on |
//!
//! The document holds every epoch of every topic and must fit into a register (1 MiB: thousands of partitions and epochs); a step that would leave too little room
//! for the way back is not made.
//!
//! A bus that takes one writer process only (files) stays so: its publisher is opened when an epoch or the mirror needs it and
//! closed right after, so that the worker of another process can take over. Topics are made through [`RolloutBus::admin`], on both buses; one that
//! somebody makes on a bus directly is seen as long as nothing was switched.

mod bus;
mod capabilities;
mod chain;
mod config;
mod control;
mod cursor;
mod doc;
mod error;
mod guard;
mod hold;
mod latency;
mod mirror;
mod outage;
mod publisher;
mod reader;
mod resolve;
mod shared;
mod slot;
mod state;
mod switch;

pub use bus::{PublisherFactory, RolloutAdmin, RolloutBus, RolloutParts, SideBus};
pub use config::{MirrorConfig, RolloutConfig, Triggers};
pub use control::{Control, Readiness, Status};
pub use mirror::{Comparison, Finding, FindingKind, MirrorState, TopicMirror};
pub use publisher::RolloutPublisher;
pub use reader::RolloutReader;
pub use state::{EndState, Part, Phase, Segment, Side, State, Switching};
