//! The register suite.

use std::sync::Arc;

use eb_checkpoint_pg::PgRegisterStore;
use eb_conformance::{Outcome, RegisterFactory, TestRegisterStore};
use eb_contract::BoxFuture;
use eb_contract::stores::RegisterStore;

use crate::support::Schema;

struct Stores;

impl RegisterFactory for Stores {
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestRegisterStore>>> {
        Box::pin(async {
            let schema = Schema::new();
            let store = PgRegisterStore::open(&schema.config()).await?;
            Ok(Box::new(Open { schema, store }) as Box<dyn TestRegisterStore>)
        })
    }
}

struct Open {
    schema: Schema,
    store: PgRegisterStore,
}

impl TestRegisterStore for Open {
    fn store(&self) -> Arc<dyn RegisterStore> {
        Arc::new(self.store.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn RegisterStore>>> {
        Box::pin(async {
            let store = PgRegisterStore::open(&self.schema.config()).await?;
            Ok(Arc::new(store) as Arc<dyn RegisterStore>)
        })
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.store.close();
            self.store = PgRegisterStore::open(&self.schema.config()).await?;
            Ok(())
        })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            self.store.close();
            Ok(())
        })
    }
}

eb_conformance::register_store_suite!(Stores);
