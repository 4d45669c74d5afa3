//! What the keys of a bus are called.

use eb_contract::{PartitionId, Topic};

/// The keys of one bus. Topic names have no colon, so what stands between colons is never ambiguous.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    base: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { base: format!("{{{prefix}}}:") }
    }

    /// The set of topics.
    pub(crate) fn topics(&self) -> String {
        format!("{}topics", self.base)
    }

    /// The hash that says which gate, or gates, had the bus last.
    pub(crate) fn gate(&self) -> String {
        format!("{}gate", self.base)
    }

    /// The hash of a topic.
    pub(crate) fn topic(&self, topic: &Topic) -> String {
        format!("{}t:{topic}", self.base)
    }

    /// The stream of a partition.
    pub(crate) fn stream(&self, topic: &Topic, partition: PartitionId) -> String {
        format!("{}s:{topic}:{partition}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_things_share_a_key() {
        let keys = Keys::new("eb");
        let names = ["topics", "gate", "t", "s", "a", "a.0", "0"].map(|name| Topic::new(name).unwrap());
        let mut all = vec![keys.topics(), keys.gate()];
        for topic in &names {
            all.push(keys.topic(topic));
            all.extend((0..3).map(|n| keys.stream(topic, PartitionId(n))));
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|key| key.starts_with("{eb}:")));
    }
}
