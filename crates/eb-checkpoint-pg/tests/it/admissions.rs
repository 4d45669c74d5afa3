//! The admission index suite, and what several gates on one database make of each other.

use std::sync::Arc;

use eb_checkpoint_pg::{PgAdmissionIndex, PgIndexConfig};
use eb_conformance::{AdmissionFactory, AdmissionOffers, Outcome, TestAdmissionIndex};
use eb_contract::BoxFuture;
use eb_contract::stores::AdmissionIndex;

use crate::support::Schema;

struct Indexes;

impl AdmissionFactory for Indexes {
    fn shared(&self) -> bool {
        true
    }

    fn offers(&self) -> AdmissionOffers {
        AdmissionOffers { reopen: true, crash: true }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestAdmissionIndex>>> {
        Box::pin(async {
            let schema = Schema::new();
            let index = open(&schema).await?;
            Ok(Box::new(Open { schema, index }) as Box<dyn TestAdmissionIndex>)
        })
    }
}

async fn open(schema: &Schema) -> Outcome<Arc<PgAdmissionIndex>> {
    Ok(Arc::new(PgAdmissionIndex::open(&schema.config(), &PgIndexConfig::new("gate")).await?))
}

struct Open {
    schema: Schema,
    index: Arc<PgAdmissionIndex>,
}

impl TestAdmissionIndex for Open {
    fn index(&self) -> Arc<dyn AdmissionIndex> {
        self.index.clone()
    }

    fn other_gate(&self) -> BoxFuture<'_, Outcome<Arc<dyn AdmissionIndex>>> {
        Box::pin(async { Ok(open(&self.schema).await? as Arc<dyn AdmissionIndex>) })
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.index.close().await?;
            self.index = open(&self.schema).await?;
            Ok(())
        })
    }

    fn crash(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            // Its sessions end in the middle of whatever they do; nothing is said to them.
            self.schema.end_sessions();
            self.index = open(&self.schema).await?;
            Ok(())
        })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async move { Ok(self.index.close().await?) })
    }
}

eb_conformance::admission_index_suite!(Indexes);
