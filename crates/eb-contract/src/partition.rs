//! Key → partition.

use md5::{Digest, Md5};

use crate::{PartitionId, PartitionKey};

/// The partition of `key` in a topic of `partitions` evenly split partitions:
/// `min(md5(key) as u128 / ⌊2¹²⁸/N⌋, N−1)`.
///
/// This is the rule that Amazon Kinesis documents for evenly split shards (partition keys map by MD5 to 128-bit
/// integers, each shard owning a range), so that a key lands alike on every backend. `partitions` of 0 counts as 1.
#[must_use]
pub fn partition_for(key: &PartitionKey, partitions: u32) -> PartitionId {
    if partitions <= 1 {
        return PartitionId(0);
    }
    let n = u128::from(partitions);
    // ⌊2¹²⁸/N⌋ without 2¹²⁸ itself: (2¹²⁸−1)/N differs from it only where N divides 2¹²⁸.
    let width = u128::MAX / n + u128::from(u128::MAX % n == n - 1);
    let index = (key_hash(key) / width).min(n - 1);
    PartitionId(u32::try_from(index).unwrap_or(partitions - 1))
}

/// MD5 over the key's UTF-8 as a 128-bit integer: what hash ranges of partitions are compared with.
#[must_use]
pub fn key_hash(key: &PartitionKey) -> u128 {
    u128::from_be_bytes(Md5::digest(key.as_str().as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_keys_land_where_the_service_puts_them() {
        // md5("a") = 0cc1…, md5("b") = 92eb…, md5("d") = 8277…, md5("e") = e167…
        let at = |k: &str, n| partition_for(&PartitionKey::new(k).unwrap(), n).0;
        assert_eq!([at("a", 2), at("b", 2), at("d", 2), at("e", 2)], [0, 1, 1, 1]);
        assert_eq!([at("a", 4), at("b", 4), at("d", 4), at("e", 4)], [0, 2, 2, 3]);
        assert_eq!(at("anything", 1), 0);
        assert_eq!(at("anything", 0), 0);
    }

    proptest! {
        #[test]
        fn every_key_has_a_partition(key in ".{1,40}", n in 1u32..5000) {
            let p = partition_for(&PartitionKey::new(key).unwrap(), n);
            prop_assert!(p.0 < n);
        }
    }
}
