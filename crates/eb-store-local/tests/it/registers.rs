//! Registers in files: the suite, and what is theirs alone.

use std::fs::{self, OpenOptions};
use std::sync::Arc;

use bytes::Bytes;
use eb_conformance::{Outcome, RegisterFactory, TestRegisterStore};
use eb_contract::stores::RegisterStore;
use eb_contract::{BoxFuture, RegisterName};
use eb_store_local::FileRegisterStore;
use tempfile::TempDir;

struct Stores;

impl RegisterFactory for Stores {
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestRegisterStore>>> {
        Box::pin(async {
            let folder = tempfile::tempdir()?;
            let store = FileRegisterStore::open(folder.path());
            Ok(Box::new(Open { store, folder }) as Box<dyn TestRegisterStore>)
        })
    }
}

struct Open {
    store: FileRegisterStore,
    folder: TempDir,
}

impl TestRegisterStore for Open {
    fn store(&self) -> Arc<dyn RegisterStore> {
        Arc::new(self.store.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn RegisterStore>>> {
        Box::pin(async {
            Ok(Arc::new(FileRegisterStore::open(self.folder.path())) as Arc<dyn RegisterStore>)
        })
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        self.store = FileRegisterStore::open(self.folder.path());
        Box::pin(async { Ok(()) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Ok(()) })
    }
}

eb_conformance::register_store_suite!(Stores);

fn plan() -> RegisterName {
    RegisterName::new("plan").unwrap()
}

#[tokio::test]
async fn looking_makes_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("not/there/yet");
    let store = FileRegisterStore::open(&root);
    assert_eq!(store.load(&plan()).await.unwrap(), None);
    store.probe().await.unwrap();
    assert!(!root.exists());
    store.swap(&plan(), 0, Bytes::from_static(b"v"), "first").await.unwrap();
    assert!(root.join("registers/plan.register").exists());
}

#[tokio::test]
async fn damage_is_said_and_never_taken_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileRegisterStore::open(folder.path());
    store.swap(&plan(), 0, Bytes::from_static(b"the value"), "first").await.unwrap();
    let file = folder.path().join("registers/plan.register");
    let whole = fs::read(&file).unwrap();
    for cut in 0..whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        let error = store.load(&plan()).await.unwrap_err();
        assert_eq!(error.kind().code(), "corrupt", "cut at {cut}: {error}");
        assert!(store.swap(&plan(), 0, Bytes::new(), "over it").await.is_err());
    }
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&file, &flipped).unwrap();
    assert_eq!(store.load(&plan()).await.unwrap_err().kind().code(), "corrupt");
    let newer = String::from_utf8(whole.clone()).unwrap().replace("\"format\":1", "\"format\":2");
    fs::write(&file, newer).unwrap();
    assert_eq!(store.load(&plan()).await.unwrap_err().kind().code(), "wrong_version");
    fs::write(&file, &whole).unwrap();
    assert_eq!(store.load(&plan()).await.unwrap().unwrap().version, 1);
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileRegisterStore::open(folder.path());
    store.swap(&plan(), 0, Bytes::from_static(b"one"), "first").await.unwrap();
    fs::write(folder.path().join("registers/plan.new"), b"{\"format\":1,\"na").unwrap();
    assert_eq!(store.load(&plan()).await.unwrap().unwrap().value, Bytes::from_static(b"one"));
    let swapped = store.swap(&plan(), 1, Bytes::from_static(b"2"), "second").await.unwrap();
    assert_eq!(store.load(&plan()).await.unwrap(), Some(swapped));
}

#[tokio::test]
async fn a_lock_that_another_holds_for_long_is_a_timeout_without_effect() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileRegisterStore::open(folder.path());
    store.swap(&plan(), 0, Bytes::from_static(b"one"), "first").await.unwrap();
    let lock = folder.path().join("registers/plan.lock");
    let held = OpenOptions::new().write(true).open(lock).unwrap();
    held.lock().unwrap();
    let error = store.swap(&plan(), 1, Bytes::from_static(b"two"), "second").await.unwrap_err();
    assert_eq!((error.kind().code(), error.is_retryable()), ("timeout", true), "{error}");
    held.unlock().unwrap();
    assert_eq!(store.load(&plan()).await.unwrap().unwrap().version, 1);
}
