//! What a child process tells its parent, a line each.

use std::fmt;
use std::io::Write;

use eb_contract::{EbRef, Effect, Error, PartitionId, PublishRecord, Record};

/// One line of a child. It is written in one call, and only once it is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The child holds this ACK.
    Acked(At, Said),
    /// The child was handed this record by a reader.
    Seen(At, Said),
    /// The gate answered for the event at this place of the stream; the receipt as JSON.
    Answered(usize, String),
    /// A call failed.
    Failed {
        /// The error kind's code.
        code: String,
        /// Whether nobody knows what happened.
        unknown: bool,
        /// The record that was to be published; empty for other calls.
        envelope: String,
        /// The error in words.
        text: String,
    },
    /// The child is at a point that the parent waits for.
    Reached(String),
}

/// A place in the topic of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

impl At {
    /// The place that a receipt names.
    ///
    /// # Panics
    /// When it is not a dense offset.
    #[must_use]
    pub fn of(eb_ref: &EbRef) -> Self {
        let PartitionId(partition) = eb_ref.partition_id;
        Self { partition, offset: eb_ref.offset.as_u64().expect("file offsets are numbers") }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

/// What lies there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Said {
    /// The partition key.
    pub key: String,
    /// The envelope's bytes. The suites' envelopes hold no tab.
    pub envelope: String,
}

impl From<&Record> for Said {
    fn from(record: &Record) -> Self {
        Self {
            key: record.partition_key.as_str().to_owned(),
            envelope: String::from_utf8_lossy(record.envelope.as_bytes()).into_owned(),
        }
    }
}

impl From<&PublishRecord> for Said {
    fn from(record: &PublishRecord) -> Self {
        Self {
            key: record.partition_key.as_str().to_owned(),
            envelope: String::from_utf8_lossy(record.envelope.as_bytes()).into_owned(),
        }
    }
}

impl Fact {
    /// What there is to say about a failed call.
    #[must_use]
    pub fn failed(error: &Error, envelope: &str) -> Self {
        Self::Failed {
            code: error.kind().code().to_owned(),
            unknown: error.effect() == Effect::Unknown,
            envelope: envelope.to_owned(),
            text: error.to_string().replace(['\t', '\n'], " "),
        }
    }

    /// Says it on standard output.
    ///
    /// # Panics
    /// When nobody listens any more.
    pub fn say(&self) {
        let line = format!("{self}\n");
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
    }

    /// Reads a line back.
    ///
    /// # Panics
    /// When it is not one: a whole line of a child is a fact, whatever happened to the child.
    #[must_use]
    pub fn hear(line: &str) -> Self {
        let mut fields = line.split('\t');
        let mut next =
            || fields.next().unwrap_or_else(|| panic!("a whole line is a fact: {line:?}")).to_owned();
        let number = |text: String| text.parse().unwrap_or_else(|_| panic!("a number in {line:?}"));
        match next().as_str() {
            word @ ("acked" | "seen") => {
                let partition = number(next());
                let at =
                    At { partition: u32::try_from(partition).unwrap_or(u32::MAX), offset: number(next()) };
                let said = Said { key: next(), envelope: next() };
                if word == "acked" { Self::Acked(at, said) } else { Self::Seen(at, said) }
            }
            "failed" => {
                Self::Failed { code: next(), unknown: next() == "unknown", envelope: next(), text: next() }
            }
            "answered" => {
                let place = number(next());
                Self::Answered(usize::try_from(place).unwrap_or(usize::MAX), next())
            }
            "reached" => Self::Reached(next()),
            _ => panic!("a whole line is a fact: {line:?}"),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = |word, at: &At, said: &Said| {
            write!(f, "{word}\t{}\t{}\t{}\t{}", at.partition, at.offset, said.key, said.envelope)
        };
        match self {
            Self::Acked(at, said) => place("acked", at, said),
            Self::Seen(at, said) => place("seen", at, said),
            Self::Failed { code, unknown, envelope, text } => {
                let effect = if *unknown { "unknown" } else { "none" };
                write!(f, "failed\t{code}\t{effect}\t{envelope}\t{text}")
            }
            Self::Answered(place, receipt) => write!(f, "answered\t{place}\t{receipt}"),
            Self::Reached(point) => write!(f, "reached\t{point}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_heard_as_it_was_said() {
        let said = Said { key: "k".to_owned(), envelope: "{\"a\":1}".to_owned() };
        let at = At { partition: 3, offset: 12 };
        let failed = |unknown| Fact::Failed {
            code: "io".to_owned(),
            unknown,
            envelope: said.envelope.clone(),
            text: "no".to_owned(),
        };
        for fact in [
            Fact::Acked(at, said.clone()),
            Fact::Seen(at, said.clone()),
            failed(true),
            failed(false),
            Fact::Answered(7, "{\"decision\":\"ADMIT\"}".to_owned()),
            Fact::Reached("done".to_owned()),
        ] {
            assert_eq!(Fact::hear(&fact.to_string()), fact);
        }
    }
}
