//! The file of one register: header and value.

use std::path::Path;

use bytes::Bytes;
use eb_contract::stores::{REGISTER_HISTORY, RegisterChange, Versioned};
use eb_contract::{Error, ErrorKind, RegisterName, Result, Timestamp};
use serde::{Deserialize, Serialize};

const FORMAT: u32 = 1;

/// A register as it lies in its file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) value: Versioned,
    /// Oldest first.
    pub(super) history: Vec<RegisterChange>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    name: RegisterName,
    version: u64,
    len: usize,
    /// XXH3-64 over the value.
    xxh3: u64,
    history: Vec<RegisterChange>,
}

/// What a header of any format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Stored {
    /// The next version.
    pub(super) fn after(former: Option<Self>, value: Bytes, at: Timestamp, reason: &str) -> Self {
        let (version, mut history) = former.map_or((1, Vec::new()), |f| (f.value.version + 1, f.history));
        history.push(RegisterChange { version, at, reason: reason.to_owned() });
        let surplus = history.len().saturating_sub(REGISTER_HISTORY);
        history.drain(..surplus);
        Self { value: Versioned { version, value }, history }
    }

    pub(super) fn encode(&self, name: &RegisterName) -> Vec<u8> {
        let header = Header {
            format: FORMAT,
            name: name.clone(),
            version: self.value.version,
            len: self.value.value.len(),
            xxh3: xxhash_rust::xxh3::xxh3_64(&self.value.value),
            history: self.history.clone(),
        };
        let mut bytes =
            serde_json::to_vec(&header).expect("numbers, texts and lists of them can always be written");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.value.value);
        bytes
    }

    pub(super) fn decode(op: &'static str, path: &Path, name: &RegisterName, bytes: &Bytes) -> Result<Self> {
        let corrupt = |what: &str| {
            let kind = ErrorKind::Corrupt { file: path.display().to_string(), line: None, byte: None };
            Error::new(kind, op, what)
                .at(path.display())
                .advise("restore the file from a copy; a register is never taken for empty")
        };
        let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| corrupt("it has no header"))?;
        let unreadable = |e| corrupt("its header cannot be read").with_source(e);
        let AnyFormat { format } = serde_json::from_slice(&bytes[..end]).map_err(unreadable)?;
        if format != FORMAT {
            let what = format!("it has format {format}, this program knows {FORMAT}");
            return Err(Error::new(ErrorKind::WrongVersion, op, what).at(path.display()));
        }
        let header: Header = serde_json::from_slice(&bytes[..end]).map_err(unreadable)?;
        let value = bytes.slice(end + 1..);
        let newest = header.history.last().map(|c| c.version);
        if header.name != *name || newest != Some(header.version) {
            return Err(corrupt("its header does not belong to it"));
        }
        if header.len != value.len() || header.xxh3 != xxhash_rust::xxh3::xxh3_64(&value) {
            return Err(corrupt("its value is not what its header says"));
        }
        Ok(Self { value: Versioned { version: header.version, value }, history: header.history })
    }
}
