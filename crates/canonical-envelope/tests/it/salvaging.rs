use canonical_envelope::{Envelope, Salvaged};

use crate::{FULL, envelope_with, full_with};

fn salvaged(input: impl AsRef<[u8]>) -> Salvaged {
    Envelope::parse(input.as_ref()).unwrap_err().salvaged().clone()
}

fn all() -> Salvaged {
    Salvaged {
        event_id: Some("018f6b1e-9c7a-7d0f-8e2b-3c4d5e6f7081".into()),
        event_type: Some("card.transaction.authorised".into()),
        ts_utc: Some("2026-01-29T09:30:00.000001Z".into()),
        manifest_fingerprint: Some("a".repeat(64)),
    }
}

#[test]
fn each_field_is_saved_where_it_is_valid_by_itself() {
    assert_eq!(salvaged(full_with("seed", "-1")), all());
    assert_eq!(salvaged(full_with("event_id", "\"\"")), Salvaged { event_id: None, ..all() });
    assert_eq!(salvaged(full_with("event_type", "1")), Salvaged { event_type: None, ..all() });
    let no_such_day = full_with("ts_utc", "\"2026-02-30T00:00:00.000000Z\"");
    assert_eq!(salvaged(no_such_day), Salvaged { ts_utc: None, ..all() });
    let upper = full_with("manifest_fingerprint", "\"AA\"");
    assert_eq!(salvaged(upper), Salvaged { manifest_fingerprint: None, ..all() });
}

#[test]
fn a_field_that_stands_twice_is_not_saved() {
    let text = envelope_with(r#""event_id":"e-2","#);
    let saved = salvaged(text);
    assert_eq!(saved.event_id, None);
    assert_eq!(saved.event_type.as_deref(), Some("a.b.c"));
}

#[test]
fn a_torn_line_gives_what_came_whole_before_the_tear() {
    assert_eq!(salvaged(&FULL[..FULL.len() - 3]), all());
    let in_the_type = FULL.find("authorised").unwrap();
    let saved = salvaged(&FULL[..in_the_type]);
    assert_eq!(saved, Salvaged { event_id: all().event_id, ..Salvaged::default() });
}

#[test]
fn broken_characters_and_deep_nesting_do_not_hide_what_came_before() {
    let mut bytes = FULL.as_bytes().to_vec();
    let at = FULL.find("m-1").unwrap();
    bytes[at] = 0xff;
    assert_eq!(salvaged(&bytes), all());
    assert_eq!(salvaged(full_with("payload", &"[".repeat(1000))), all());
}

#[test]
fn nothing_is_made_up() {
    for input in
        ["", "[]", "nonsense", "{", "[{\"event_id\":\"e-1\"}]", "{\"payload\":{\"event_id\":\"e-1\"}}"]
    {
        assert_eq!(salvaged(input), Salvaged::default(), "{input:?}");
    }
    assert_eq!(salvaged(" ".repeat((1 << 20) + 1)), Salvaged::default());
}
