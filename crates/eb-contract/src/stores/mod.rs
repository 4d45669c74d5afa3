//! The stores: durable state beside the log.

pub mod admission;
pub mod checkpoint;
pub mod dead_letter;
pub mod lease;
pub mod processed;
pub mod register;

pub use admission::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, IndexCut, OpenReservation,
    PolicyEpoch, PolicyRev, ReservationId, ReserveRequest, Reserved,
};
pub use checkpoint::{Checkpoint, CheckpointStore, Lease, ResetRequest};
pub use dead_letter::{
    DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStore, DeadReason, FailedAttempt, NewDeadLetter,
    Resolution, Resolved, check_resolution,
};
pub use lease::{
    Claim, Heartbeat, LONGEST_LEASE, LeaseInfo, LeaseKey, LeaseStore, Renewal, Reported, SHORTEST_LEASE,
    WorkPhase, WorkReport, check_lease_request, check_owner, first_epoch,
};
pub use processed::{EventIdentity, Mark, MarkScope, ProcessedStore, Progress, Seen, TransactionalStore};
pub use register::{
    MAX_REGISTER_BYTES, REGISTER_HISTORY, RegisterChange, RegisterStore, Versioned, check_swap,
    version_conflict,
};
