use canonical_envelope::Envelope;
use proptest::prelude::*;

use crate::envelope_with;
use crate::generated::{object, style};

fn canonical(input: &str) -> String {
    let mut out = Vec::new();
    Envelope::parse(input.as_bytes()).unwrap().write_canonical(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn order_numbers_and_strings_stay_as_written_and_white_space_goes() {
    let written = envelope_with(
        "\n \"payload\" : {\t\"z\":1.0, \"a\" :[ 1e5,-0, 1E+2 ],\r\n \"s\":\" \\u0041\\/ \\\" { \", \"e\" : { } , \"l\":[ ] } , ",
    );
    let expected =
        envelope_with(r#""payload":{"z":1.0,"a":[1e5,-0,1E+2],"s":" \u0041\/ \" { ","e":{},"l":[]},"#);
    assert_eq!(canonical(&format!(" {written}\n")), expected);
}

#[test]
fn what_stands_in_its_canonical_form_says_so() {
    let compact = envelope_with(r#""payload":{"a b":" "},"#);
    for (input, is) in [
        (compact.clone(), true),
        (format!("\n{compact}\r\n"), true),
        (compact.replace("\"payload\":", "\"payload\": "), false),
    ] {
        let envelope = Envelope::parse(input.as_bytes()).unwrap();
        assert_eq!(envelope.is_canonical(), is, "{input:?}");
        assert_eq!(envelope.as_written() == compact, is);
    }
}

#[test]
fn the_buffer_is_appended_to() {
    let text = envelope_with("");
    let mut out = b"before".to_vec();
    Envelope::parse(text.as_bytes()).unwrap().write_canonical(&mut out);
    assert_eq!(out, format!("before{text}").into_bytes());
}

proptest! {
    #[test]
    fn the_canonical_form_is_the_text_without_white_space_and_is_its_own(payload in object(), mut style in style()) {
        let written = style.envelope("a.b.c", &payload);
        let once = canonical(&written.spaced);
        prop_assert_eq!(&once, &written.compact);
        prop_assert!(!once.contains(['\n', '\r']));
        prop_assert_eq!(canonical(&once), written.compact);
        prop_assert!(Envelope::parse(once.as_bytes()).unwrap().is_canonical());
    }
}
