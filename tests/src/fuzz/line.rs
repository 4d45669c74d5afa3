use eb_contract::Timestamp;
use eb_file::format::line::{LineParts, decode_line, encode_line};

/// The line decoder: what it takes is spelled exactly as the encoder spells it, so nothing is ever read from bytes that would not
/// be written. Envelopes are not looked into (the checksum speaks for them).
///
/// # Panics
/// When that does not hold.
pub fn line(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let mended;
    let text = if mode % 2 == 0 {
        rest
    } else {
        mended = [format!("{{\"crc32c\":\"{:08x}", crc_fast::crc32_iscsi(rest)).as_bytes(), rest].concat();
        &mended
    };
    let Ok(line) = decode_line(text) else { return };
    assert!(line.durable <= line.offset && line.offset < u64::MAX);
    let mut again = Vec::new();
    let key = line.key.unescape();
    let published_at: [u8; Timestamp::TEXT_LEN] = line.published_at.to_text();
    encode_line(
        &mut again,
        &LineParts {
            offset: line.offset,
            durable: line.durable,
            published_at: &published_at,
            key: &key,
            envelope: line.envelope,
        },
    );
    assert_eq!(again.strip_suffix(b"\n"), Some(text), "one spelling only");
    let (written, is_the_key) = line.key.as_written();
    assert_eq!(is_the_key, written == key.as_bytes());
    assert!(!key.is_empty());
}
