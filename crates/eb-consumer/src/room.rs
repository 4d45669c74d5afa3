//! Room for records in work: what keeps reading from running away from handling.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Room for so many records and bytes.
#[derive(Debug)]
pub(crate) struct Room {
    records: Semaphore,
    bytes: Semaphore,
    max_records: usize,
    max_bytes: usize,
}

impl Room {
    pub(crate) fn new(records: usize, bytes: usize) -> Arc<Self> {
        let max_records = records.clamp(1, Semaphore::MAX_PERMITS);
        let max_bytes = bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Arc::new(Self {
            records: Semaphore::new(max_records),
            bytes: Semaphore::new(max_bytes),
            max_records,
            max_bytes,
        })
    }

    /// How many records there is room for now.
    pub(crate) fn free_records(&self) -> usize {
        self.records.available_permits()
    }

    /// Waits until there is room for something.
    pub(crate) async fn some(&self) {
        // Never closed, so these cannot fail.
        let _record = self.records.acquire().await;
        let _byte = self.bytes.acquire().await;
    }

    /// Takes room. More than there is in all counts as all of it, so that one large record gets through by itself.
    pub(crate) async fn take(self: &Arc<Self>, records: usize, bytes: usize) -> Taken {
        let (records, bytes) = (records.min(self.max_records), bytes.min(self.max_bytes));
        let mut taken = Taken { room: Arc::clone(self), records: 0, bytes: 0 };
        let many = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        if let Ok(permit) = self.records.acquire_many(many(records)).await {
            permit.forget();
            taken.records = records;
        }
        if let Ok(permit) = self.bytes.acquire_many(many(bytes)).await {
            permit.forget();
            taken.bytes = bytes;
        }
        taken
    }
}

/// Room that was taken; what has not been given back by then goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    room: Arc<Room>,
    records: usize,
    bytes: usize,
}

impl Taken {
    pub(crate) fn none(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), records: 0, bytes: 0 }
    }

    pub(crate) fn add(&mut self, mut more: Self) {
        self.records += std::mem::take(&mut more.records);
        self.bytes += std::mem::take(&mut more.bytes);
    }

    pub(crate) fn give_back(&mut self, records: usize, bytes: usize) {
        let (records, bytes) = (records.min(self.records), bytes.min(self.bytes));
        self.records -= records;
        self.bytes -= bytes;
        self.room.records.add_permits(records);
        self.room.bytes.add_permits(bytes);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.give_back(self.records, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_larger_than_the_room_gets_through_alone_and_everything_comes_back() {
        let room = Room::new(2, 10);
        let mut large = room.take(1, 1000).await;
        assert!(room.take(1, 1).now_or_never().is_none());
        large.give_back(0, 1000);
        let mut more = room.take(1, 4).await;
        more.add(large);
        assert_eq!(room.free_records(), 0);
        drop(more);
        assert_eq!((room.free_records(), room.bytes.available_permits()), (2, 10));
    }
}
