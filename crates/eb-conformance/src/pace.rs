//! How patient and how thorough the suite is.

use std::time::Duration;

/// How patient and how thorough the suite is with a backend. Nothing here measures speed: it bounds how long a
/// scenario waits before it says that something does not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long a record that was ACKed may take until a reader sees it.
    pub visible_within: Duration,
    /// How long one scenario may take before it counts as hanging.
    pub deadline: Duration,
    /// What is ACKed can be read at once, by a read that does not wait. Backends in this process or on its disk
    /// promise that; services often do not.
    pub immediate: bool,
    /// Records of the longer scenarios; at least 110, so that offsets pass 9→10 and 99→100.
    pub records: usize,
    /// Operations of the randomised scenarios.
    pub operations: usize,
}

impl Pace {
    /// For a backend within the process or on its disk.
    pub const LOCAL: Self = Self {
        visible_within: Duration::from_secs(20),
        deadline: Duration::from_secs(120),
        immediate: true,
        records: 120,
        operations: 120,
    };

    /// For a service behind a network, where calls are slow and what was ACKed shows up a little later.
    pub const SERVICE: Self = Self {
        visible_within: Duration::from_secs(60),
        deadline: Duration::from_secs(600),
        immediate: false,
        records: 110,
        operations: 40,
    };
}
