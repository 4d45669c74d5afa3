//! The register suite.

use std::sync::Arc;

use eb_conformance::{Outcome, RegisterFactory, TestRegisterStore};
use eb_contract::BoxFuture;
use eb_contract::stores::RegisterStore;
use eb_memory::MemoryRegisterStore;

struct Stores;

impl RegisterFactory for Stores {
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestRegisterStore>>> {
        Box::pin(async { Ok(Box::new(Open(MemoryRegisterStore::new())) as Box<dyn TestRegisterStore>) })
    }
}

struct Open(MemoryRegisterStore);

impl TestRegisterStore for Open {
    fn store(&self) -> Arc<dyn RegisterStore> {
        Arc::new(self.0.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn RegisterStore>>> {
        Box::pin(async { Ok(self.store()) })
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        self.0 = self.0.clone();
        Box::pin(async { Ok(()) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Ok(()) })
    }
}

eb_conformance::register_store_suite!(Stores);
