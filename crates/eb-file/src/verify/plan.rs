//! What a repair of a partition would do, gathered while it is checked.

use eb_contract::{PartitionId, Topic};

use super::{Acked, FindingKind, PartitionReport, Repair, Severity};
use crate::layout::PartitionFiles;

/// What recovery has to do here.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) torn: Option<(u64, u64)>,
    pub(super) padding: u64,
    pub(super) unproven: u64,
    pub(super) sidecar: Option<String>,
}

impl Plan {
    /// The sidecar is wrong, and is to be made anew.
    pub(super) fn rebuild(
        &mut self,
        files: &PartitionFiles,
        report: &mut PartitionReport,
        kind: FindingKind,
        message: String,
    ) {
        self.sidecar.get_or_insert_with(|| message.clone());
        report.find(kind, Severity::Derived, Acked::NotApplicable, &files.sidecar, None, message);
    }

    pub(super) fn repair(self, topic: &Topic, partition_id: PartitionId) -> Option<Repair> {
        let idle = self.torn.is_none() && self.padding == 0 && self.unproven == 0 && self.sidecar.is_none();
        (!idle).then(|| Repair::Recover {
            topic: topic.clone(),
            partition_id,
            set_aside_from_byte: self.torn.map(|(byte, _)| byte),
            set_aside_bytes: self.torn.map_or(0, |(_, bytes)| bytes),
            rewrite_bytes: self.unproven,
            cut_bytes: self.padding,
            rebuild_sidecar: self.sidecar,
        })
    }
}
