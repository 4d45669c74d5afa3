//! The stores: durable state beside the log.

pub mod admission;
pub mod checkpoint;

pub use admission::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, IndexCut, OpenReservation,
    PolicyEpoch, PolicyRev, ReservationId, ReserveRequest, Reserved,
};
pub use checkpoint::{Checkpoint, CheckpointStore, Lease, ResetRequest};
