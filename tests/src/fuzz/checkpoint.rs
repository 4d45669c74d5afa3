use std::path::PathBuf;
use std::sync::Arc;

use eb_contract::stores::{Checkpoint, CheckpointStore, Lease};
use eb_contract::{BusIncarnation, ConsumerName, Cut, ErrorKind, Offset, OffsetKind, PartitionId};
use eb_file::FileCheckpointStore;
use eb_testkit::fault_disk::FaultDisk;

use crate::{block_on, topic};

/// A file checkpoint: either refused as damaged, or taken, and then a commit goes on from exactly what was loaded. Mode bit 0: make the checksum
/// fit, wherever the bytes name it.
///
/// # Panics
/// When that does not hold.
pub fn checkpoint(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let disk = FaultDisk::new(0);
    let store = FileCheckpointStore::open_on("/bus", Arc::new(disk.clone()));
    let consumer = ConsumerName::new("scorer").expect("letters");
    let lease = Lease { owner: "worker".to_owned(), epoch: 1 };
    let at = |offset| Cut::Next(Offset::from_u64(OffsetKind::FileLine, offset));
    let mut wanted = Checkpoint {
        consumer: consumer.clone(),
        topic: topic(),
        partition_id: PartitionId(0),
        cut: at(5),
        caught_up_at: None,
        version: 0,
        bus_incarnation: BusIncarnation::new(&"a".repeat(32)).expect("hex"),
        lease: None,
        committed_at: None,
    };
    block_on(store.commit(std::slice::from_ref(&wanted), &lease)).remove(0).expect("a calm disk");
    let path = PathBuf::from("/bus/checkpoints/scorer").join(topic().as_str()).join("partition=0.json");
    let mut content = rest.to_vec();
    if mode & 1 == 1 {
        mend(&mut content);
    }
    disk.damage(&path, &content);

    match block_on(store.load(&consumer, &topic(), PartitionId(0))) {
        Ok(Some(loaded)) => {
            assert_eq!(
                (&loaded.consumer, &loaded.topic, loaded.partition_id),
                (&consumer, &topic(), PartitionId(0))
            );
            wanted.version = loaded.version;
            (wanted.cut, wanted.bus_incarnation) = (loaded.cut, loaded.bus_incarnation.clone());
            let lease = loaded.lease.clone().unwrap_or(lease);
            match block_on(store.commit(&[wanted], &lease)).remove(0) {
                Ok(stored) => assert!(stored.version > loaded.version && stored.cut == loaded.cut),
                Err(e) => assert!(matches!(e.kind(), ErrorKind::Fenced | ErrorKind::InvalidInput), "{e}"),
            }
        }
        Ok(None) => panic!("what cannot be read is never none"),
        Err(e) => assert!(
            matches!(e.kind(), ErrorKind::Corrupt { .. } | ErrorKind::WrongVersion | ErrorKind::Io),
            "{e}"
        ),
    }
}

/// Puts the checksum of what follows it where a checkpoint has it.
fn mend(content: &mut [u8]) {
    const PREFIX: &[u8] = b"{\n  \"crc32c\": \"";
    let covered = PREFIX.len() + 8;
    if content.starts_with(PREFIX) && content.len() > covered {
        let digits = format!("{:08x}", crc_fast::crc32_iscsi(&content[covered..]));
        content[PREFIX.len()..covered].copy_from_slice(digits.as_bytes());
    }
}
