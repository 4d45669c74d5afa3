//! `<domain>.<resource>.<past-tense>`.
//!
//! Three segments of lower-case letters, digits and underscores, each beginning with a letter. The last one says what has happened: its first or its
//! last word (words are parted by underscores: `rolled_back`, `partially_refunded`) ends in `-ed`, or stands in the list of irregular
//! verbs. Only `-ed` is a suffix of the rule: `-en` and `-t` would let `token`, `open` and `account` pass, and the verbs that end so are few
//! enough to be listed.

use std::collections::HashSet;

const IRREGULAR: &str = include_str!("irregular_verbs.txt");
/// The longest event type of the envelope.
const MAX_BYTES: usize = 256;

/// The words that the suffix rule does not know.
#[derive(Debug, Clone)]
pub(crate) struct Verbs {
    past: HashSet<String>,
    not_past: HashSet<String>,
}

impl Verbs {
    /// The built-in list.
    pub(crate) fn built_in() -> Self {
        let mut verbs = Self { past: HashSet::new(), not_past: HashSet::new() };
        for (_, line) in words(IRREGULAR) {
            verbs.add(line);
        }
        verbs
    }

    /// Adds a file's words.
    ///
    /// # Errors
    /// The 1-based line that is no word, and what it says.
    pub(crate) fn extend(&mut self, text: &str) -> Result<(), (usize, String)> {
        for (line, word) in words(text) {
            let plain = word.strip_prefix('!').unwrap_or(word);
            if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_lowercase()) {
                return Err((line, word.to_owned()));
            }
            self.add(word);
        }
        Ok(())
    }

    /// The later word wins.
    fn add(&mut self, word: &str) {
        match word.strip_prefix('!') {
            Some(word) => {
                self.past.remove(word);
                self.not_past.insert(word.to_owned());
            }
            None => {
                self.not_past.remove(word);
                self.past.insert(word.to_owned());
            }
        }
    }

    fn is_past(&self, word: &str) -> bool {
        self.past.contains(word) || (word.len() > 3 && word.ends_with("ed") && !self.not_past.contains(word))
    }

    /// What is wrong with an event type, if anything.
    pub(crate) fn fault(&self, name: &str) -> Option<String> {
        if name.len() > MAX_BYTES {
            return Some(format!("an event type has at most {MAX_BYTES} bytes"));
        }
        let segments: Vec<_> = name.split('.').collect();
        let [_, _, happened] = segments[..] else {
            return Some(format!("{name:?} has {} segments instead of three", segments.len()));
        };
        let well_formed = |s: &&str| {
            s.starts_with(|c: char| c.is_ascii_lowercase())
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if let Some(wrong) = segments.iter().find(|s| !well_formed(s)) {
            return Some(format!("segment {wrong:?} of {name:?} is not of a-z 0-9 _ with a letter first"));
        }
        let mut words = happened.split('_');
        let (first, last) = (words.next().unwrap_or(""), words.next_back().unwrap_or(""));
        if self.is_past(first) || self.is_past(last) {
            return None;
        }
        Some(format!("{happened:?} of {name:?} does not say what has happened"))
    }
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// What to do about a name that is none.
pub(crate) const ADVICE: &str = "name it <domain>.<resource>.<past-tense>, as in card.transaction.authorised; a past tense without -ed goes into a file of [event-types] exceptions";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_has_happened() {
        let verbs = Verbs::built_in();
        for good in [
            "card.transaction.authorised",
            "payment.refund.sent",
            "order.line.put",
            "job.run.rolled_back",
            "card.charge.partially_refunded",
            "a1.b_2.stolen",
        ] {
            assert_eq!(verbs.fault(good), None, "{good}");
        }
        for wrong in [
            "card.transaction.authorise",
            "card.transaction.open",
            "card.authorised",
            "card.transaction.line.added",
            "Card.transaction.authorised",
            "card.transaction.",
            "card..authorised",
            "card.trans-action.authorised",
            "card.channel.feed",
            "card.auth.token",
            "card.item.red",
            "card.transaction.authorised ",
            "",
        ] {
            assert!(verbs.fault(wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn exceptions_add_and_take_away() {
        let mut verbs = Verbs::built_in();
        verbs.extend("# ours\nyeet\n!sent\n").unwrap();
        assert_eq!(verbs.fault("a.b.yeet"), None);
        assert!(verbs.fault("a.b.sent").is_some());
        assert_eq!(verbs.extend("ok\nnot a word\n"), Err((2, "not a word".to_owned())));
    }

    #[test]
    fn the_list_is_sorted() {
        let all: Vec<_> = words(IRREGULAR).map(|(_, w)| w).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(all, sorted);
    }
}
