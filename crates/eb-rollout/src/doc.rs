//! A document in a register: JSON, checked when read, and swapped so that a lost answer is found out.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use eb_contract::stores::RegisterStore;
use eb_contract::{Effect, Error, ErrorKind, RegisterName, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is kept in a register.
pub(crate) trait Document: Serialize + DeserializeOwned + Clone {
    /// What is wrong with it.
    fn check(&self) -> Result<(), String>;
    fn stamp(&self) -> &str;
    fn set_stamp(&mut self, stamp: String);
}

pub(crate) struct Doc<T> {
    store: Arc<dyn RegisterStore>,
    name: RegisterName,
    owner: String,
    changes: AtomicU64,
    of: PhantomData<fn() -> T>,
}

impl<T: Document> Doc<T> {
    pub(crate) fn new(store: Arc<dyn RegisterStore>, name: RegisterName, owner: String) -> Self {
        Self { store, name, owner, changes: AtomicU64::new(0), of: PhantomData }
    }

    pub(crate) fn store(&self) -> &dyn RegisterStore {
        &*self.store
    }

    pub(crate) fn name(&self) -> &RegisterName {
        &self.name
    }

    /// What stands, with its version.
    pub(crate) async fn load(&self) -> Result<Option<(u64, T)>> {
        let Some(stands) = self.store.load(&self.name).await? else { return Ok(None) };
        Ok(Some((stands.version, self.read(&stands.value)?)))
    }

    fn read(&self, value: &Bytes) -> Result<T> {
        let corrupt = |what: String| {
            let kind = ErrorKind::Corrupt { file: format!("register {}", self.name), line: None, byte: None };
            Error::new(kind, "read rollout state", what).at(&self.name)
        };
        let read: T = serde_json::from_slice(value).map_err(|e| {
            corrupt("the document cannot be read".to_owned())
                .with_source(e)
                .advise("use the program version that wrote it, or a newer one")
        })?;
        read.check().map_err(corrupt)?;
        Ok(read)
    }

    /// Stores `next` in the place of `version`. A swap whose answer was lost is looked up.
    pub(crate) async fn swap(&self, version: u64, mut next: T, reason: &str) -> Result<(u64, T)> {
        let stamp = format!("{}#{}", self.owner, self.changes.fetch_add(1, Ordering::Relaxed));
        next.set_stamp(stamp);
        let value = serde_json::to_vec(&next).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "store rollout state", "it cannot be written as JSON")
                .with_source(e)
        })?;
        // A reason is at most this long; what brought it about may be a whole error.
        let reason: String = reason.chars().take(1000).collect();
        match self.store.swap(&self.name, version, value.into(), &reason).await {
            Ok(stands) => Ok((stands.version, next)),
            Err(error) if error.effect() == Effect::Unknown => match self.load().await {
                Ok(Some((now, stands))) if stands.stamp() == next.stamp() => Ok((now, stands)),
                Ok(stands) => {
                    let current = stands.map_or(0, |(version, _)| version);
                    // Someone else's stands, or the former one: ours is not, and the caller looks again.
                    if current == version {
                        return Err(error);
                    }
                    Err(eb_contract::stores::version_conflict(&self.name, version, current))
                }
                Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

pub(crate) fn is_conflict(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::VersionConflict { .. })
}
