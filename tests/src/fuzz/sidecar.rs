use eb_file::format::sidecar::{ENTRY_LEN, Entry, HEADER_LEN, Header};

/// The sidecar's header and entries: what is believed is byte for byte what would be written for what it says.
///
/// # Panics
/// When that does not hold.
pub fn sidecar(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if mode & 1 == 1 {
        bytes.resize(HEADER_LEN, 0);
        mend(&mut bytes, HEADER_LEN);
    }
    if let Ok(header) = Header::decode(&bytes) {
        // Bytes 84–507 are reserved: a later flag must not hide there unnoticed.
        assert_eq!(header.encode()[..], bytes[..HEADER_LEN], "one spelling only");
    }
    let slot = u64::from(mode >> 1);
    let mut bytes = rest.to_vec();
    if mode & 1 == 1 {
        bytes.resize(ENTRY_LEN, 0);
        mend(&mut bytes, ENTRY_LEN);
    }
    if let Some(entry) = Entry::decode(&bytes, slot) {
        assert_eq!(entry.encode(slot)[..], bytes[..ENTRY_LEN], "one spelling only");
    }
}

/// Makes the checksum fit.
pub(super) fn mend(bytes: &mut [u8], len: usize) {
    let crc = crc_fast::crc32_iscsi(&bytes[..len - 4]);
    bytes[len - 4..len].copy_from_slice(&crc.to_le_bytes());
}
