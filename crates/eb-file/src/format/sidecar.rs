//! The sidecar's bytes: header with the watermark, and index entries (FORMAT.md, section 3).

use eb_contract::Timestamp;

/// Bytes of the header; one disk sector, so that it is written whole or not at all.
pub const HEADER_LEN: usize = 512;
/// Bytes of one entry.
pub const ENTRY_LEN: usize = 32;
/// The least distance in log bytes between the lines of two entries.
pub const ENTRY_SPACING: u64 = 64 * 1024;

const MAGIC: &[u8; 8] = b"ebindex1";
const VERSION: u32 = 1;
const FLAG_CLEAN: u32 = 1;
const CRC_AT: usize = HEADER_LEN - 4;
const RESERVED: std::ops::Range<usize> = 84..CRC_AT;

/// A place between two lines of a log, with what is needed to append there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The offset that the next record has or will have.
    pub next: u64,
    /// The byte where its line starts or will start.
    pub bytes: u64,
    /// When the record before it was published; `None` when there is none.
    pub last_time: Option<Timestamp>,
}

/// The sidecar's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The topic's.
    pub incarnation: [u8; 16],
    /// Of the boot in which it was written; zeros if unknown.
    pub boot_id: [u8; 16],
    /// The partition.
    pub partition: u32,
    /// Log and sidecar were closed in order, and nothing was appended since.
    pub clean: bool,
    /// Everything below is on disk.
    pub watermark: Position,
    /// Index entries, all of lines below the watermark.
    pub entries: u64,
}

/// Why a header is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderDamage {
    /// Fewer than [`HEADER_LEN`] bytes.
    Short,
    /// Not the sidecar's first bytes.
    Magic,
    /// Some byte was changed or lost.
    Checksum,
    /// A version that this program does not know.
    Version(u32),
    /// The checksum is right, and the content makes no sense.
    Content,
}

impl std::fmt::Display for HeaderDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => f.write_str("its header is cut short"),
            Self::Magic => f.write_str("it does not begin as a sidecar does"),
            Self::Checksum => f.write_str("its header's checksum does not match"),
            Self::Version(v) => write!(f, "it has version {v}, this program knows {VERSION}"),
            Self::Content => f.write_str("its header makes no sense"),
        }
    }
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(if self.clean { FLAG_CLEAN } else { 0 }).to_le_bytes());
        put(16, &self.incarnation);
        put(32, &self.boot_id);
        put(48, &self.watermark.next.to_le_bytes());
        put(56, &self.watermark.bytes.to_le_bytes());
        put(64, &self.watermark.last_time.map_or(-1, Timestamp::as_micros).to_le_bytes());
        put(72, &self.entries.to_le_bytes());
        put(80, &self.partition.to_le_bytes());
        let crc = crc_fast::crc32_iscsi(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header from the sidecar's first bytes.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderDamage> {
        let bytes = bytes.first_chunk::<HEADER_LEN>().ok_or(HeaderDamage::Short)?;
        if !bytes.starts_with(MAGIC) {
            return Err(HeaderDamage::Magic);
        }
        if u32_at(bytes, CRC_AT) != crc_fast::crc32_iscsi(&bytes[..CRC_AT]) {
            return Err(HeaderDamage::Checksum);
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(HeaderDamage::Version(version));
        }
        let flags = u32_at(bytes, 12);
        let (next, log_bytes, micros) = (u64_at(bytes, 48), u64_at(bytes, 56), u64_at(bytes, 64) as i64);
        let last_time = if micros == -1 { None } else { Timestamp::from_micros(micros) };
        let entries = u64_at(bytes, 72);
        let sensible = flags & !FLAG_CLEAN == 0
            && (next == 0) == (log_bytes == 0)
            && (next == 0) == last_time.is_none()
            && (micros == -1 || last_time.is_some())
            && entries <= log_bytes / ENTRY_SPACING
            && bytes[RESERVED].iter().all(|b| *b == 0);
        if !sensible {
            return Err(HeaderDamage::Content);
        }
        Ok(Self {
            incarnation: array_at(bytes, 16),
            boot_id: array_at(bytes, 32),
            partition: u32_at(bytes, 80),
            clean: flags & FLAG_CLEAN != 0,
            watermark: Position { next, bytes: log_bytes, last_time },
            entries,
        })
    }
}

/// One entry of the sparse index: where a line starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The line's offset.
    pub offset: u64,
    /// The byte where the line starts.
    pub byte: u64,
    /// When the record was published.
    pub time: Timestamp,
}

impl Entry {
    /// Where the entry with this number lies in the sidecar.
    #[must_use]
    pub const fn place(slot: u64) -> u64 {
        HEADER_LEN as u64 + slot * ENTRY_LEN as u64
    }

    /// The entry's bytes for its slot.
    #[must_use]
    pub fn encode(&self, slot: u64) -> [u8; ENTRY_LEN] {
        let mut out = [0; ENTRY_LEN];
        out[0..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..16].copy_from_slice(&self.byte.to_le_bytes());
        out[16..24].copy_from_slice(&self.time.as_micros().to_le_bytes());
        out[24..28].copy_from_slice(&(slot as u32).to_le_bytes());
        let crc = crc_fast::crc32_iscsi(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the entry of a slot; `None` when any byte is not as it was written.
    #[must_use]
    pub fn decode(bytes: &[u8], slot: u64) -> Option<Self> {
        let bytes = bytes.first_chunk::<ENTRY_LEN>()?;
        let intact =
            u32_at(bytes, 28) == crc_fast::crc32_iscsi(&bytes[..28]) && u32_at(bytes, 24) == slot as u32;
        let time = Timestamp::from_micros(u64_at(bytes, 16) as i64)?;
        intact.then(|| Self { offset: u64_at(bytes, 0), byte: u64_at(bytes, 8), time })
    }
}

/// Decides which lines get an entry. Writer, recovery and `verify` feed it every line in order, and so agree.
#[derive(Debug, Clone, Copy, Default)]
pub struct IndexSpacing {
    last: u64,
}

impl IndexSpacing {
    /// Goes on after an entry for the line at `last_byte` (0 when there is none yet).
    #[must_use]
    pub fn after(last_byte: u64) -> Self {
        Self { last: last_byte }
    }

    /// Whether the line that starts at `byte` gets an entry.
    pub fn takes(&mut self, byte: u64) -> bool {
        let takes = byte >= self.last + ENTRY_SPACING;
        if takes {
            self.last = byte;
        }
        takes
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn header(next: u64, bytes: u64, clean: bool) -> Header {
        let last_time = (next > 0).then(|| time(1_769_680_800_123_456));
        Header {
            incarnation: *b"0123456789abcdef",
            boot_id: *b"fedcba9876543210",
            partition: 3,
            clean,
            watermark: Position { next, bytes, last_time },
            entries: bytes / ENTRY_SPACING,
        }
    }

    #[test]
    fn a_changed_header_byte_is_never_believed() {
        let good = header(7, 1_000_000, true).encode();
        assert_eq!(Header::decode(&good), Ok(header(7, 1_000_000, true)));
        for byte in 0..HEADER_LEN {
            for bit in 0..8 {
                let mut bad = good;
                bad[byte] ^= 1 << bit;
                assert!(Header::decode(&bad).is_err(), "byte {byte} bit {bit}");
            }
        }
        assert_eq!(Header::decode(&good[..HEADER_LEN - 1]), Err(HeaderDamage::Short));
        assert_eq!(Header::decode(&[0; HEADER_LEN]), Err(HeaderDamage::Magic));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = header(0, 0, false).encode();
        bytes[8] = 2;
        let crc = crc_fast::crc32_iscsi(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(HeaderDamage::Version(2)));
    }

    #[test]
    fn what_this_version_would_not_write_is_not_believed_though_its_checksum_fits() {
        let mend = |change: &dyn Fn(&mut [u8])| {
            let mut bytes = header(0, 0, false).encode();
            change(&mut bytes);
            let crc = crc_fast::crc32_iscsi(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            Header::decode(&bytes)
        };
        assert_eq!(mend(&|_| {}), Ok(header(0, 0, false)));
        assert_eq!(mend(&|b| b[12] = 2), Err(HeaderDamage::Content), "an unknown flag");
        assert_eq!(mend(&|b| b[64] = 0xfe), Err(HeaderDamage::Content), "another spelling of no time");
        for at in RESERVED {
            assert_eq!(mend(&|b| b[at] = 1), Err(HeaderDamage::Content), "reserved byte {at}");
        }
    }

    #[test]
    fn an_entry_proves_itself_and_its_slot() {
        let entry = Entry { offset: 300, byte: 70_000, time: time(5) };
        let good = entry.encode(4);
        assert_eq!(Entry::decode(&good, 4), Some(entry));
        assert_eq!(Entry::decode(&good, 5), None, "another entry's slot");
        assert_eq!(Entry::decode(&[0; ENTRY_LEN], 0), None, "never written");
        for byte in 0..ENTRY_LEN {
            for bit in 0..8 {
                let mut bad = good;
                bad[byte] ^= 1 << bit;
                assert_eq!(Entry::decode(&bad, 4), None, "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn entries_keep_their_distance_wherever_one_resumes() {
        let lines: Vec<u64> = (0..5000).map(|i| i * 333).collect();
        let mut whole = IndexSpacing::default();
        let taken: Vec<u64> = lines.iter().copied().filter(|b| whole.takes(*b)).collect();
        assert!(taken.windows(2).all(|w| w[1] - w[0] >= ENTRY_SPACING));
        assert!(taken[0] >= ENTRY_SPACING);
        for (i, from) in taken.iter().enumerate() {
            let mut resumed = IndexSpacing::after(*from);
            let rest: Vec<u64> = lines.iter().copied().filter(|b| b > from && resumed.takes(*b)).collect();
            assert_eq!(rest, taken[i + 1..]);
        }
    }

    proptest! {
        #[test]
        fn headers_come_back(next in 1u64.., bytes in 1u64.., clean: bool) {
            let header = header(next, bytes, clean);
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), slot: u64) {
            let _ = Header::decode(&bytes);
            let _ = Entry::decode(&bytes, slot);
        }
    }
}
