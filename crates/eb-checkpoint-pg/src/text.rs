//! Texts that Postgres cannot hold as they are.
//!
//! Owners, reasons and policy names may hold any character; a Postgres `text` may not hold U+0000. They are stored with
//! `\` written as `\\` and U+0000 as `\0`: readable as before in all but these two, and no two texts become one.

use std::borrow::Cow;

pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', '\\']) {
        Cow::Owned(text.replace('\\', "\\\\").replace('\0', "\\0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text that was escaped; `None` for one that never was.
pub(crate) fn unescape(stored: &str) -> Option<String> {
    let mut text = String::with_capacity(stored.len());
    let mut chars = stored.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                '\\' => text.push('\\'),
                '0' => text.push('\0'),
                _ => return None,
            },
            c => text.push(c),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_comes_back_and_holds_no_nul(text in "[a\\\\\0ä0]{0,12}") {
            let stored = escape(&text);
            prop_assert!(!stored.contains('\0'));
            prop_assert_eq!(unescape(&stored), Some(text.clone()));
        }
    }

    #[test]
    fn a_text_that_was_never_escaped_is_none() {
        assert_eq!(unescape("a\\b"), None);
        assert_eq!(unescape("a\\"), None);
    }
}
