//! The admission index suite.

use std::sync::Arc;

use eb_conformance::{AdmissionFactory, AdmissionOffers, Outcome, TestAdmissionIndex};
use eb_contract::BoxFuture;
use eb_contract::stores::AdmissionIndex;
use eb_memory::MemoryAdmissionIndex;

struct Indexes;

impl AdmissionFactory for Indexes {
    fn shared(&self) -> bool {
        false
    }

    fn offers(&self) -> AdmissionOffers {
        AdmissionOffers { reopen: true, crash: true }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestAdmissionIndex>>> {
        Box::pin(async { Ok(Box::new(Open(Arc::default())) as Box<dyn TestAdmissionIndex>) })
    }
}

struct Open(Arc<MemoryAdmissionIndex>);

impl TestAdmissionIndex for Open {
    fn index(&self) -> Arc<dyn AdmissionIndex> {
        self.0.clone()
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.0.close().await?;
            self.0 = Arc::new(self.0.reopen());
            Ok(())
        })
    }

    fn crash(&mut self) -> BoxFuture<'_, Outcome> {
        self.0 = Arc::new(self.0.reopen_after_crash());
        Box::pin(async { Ok(()) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async move { Ok(self.0.close().await?) })
    }
}

mod of_one_gate {
    eb_conformance::admission_index_suite!(super::Indexes);
}
