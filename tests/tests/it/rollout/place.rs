//! Two buses, a database, and the profile that leads from one to the other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eb_contract::EventBusReader;
use eb_profile::{Env, OpenError, Platform, Profile, Purpose};
use eb_rollout::{Side, Status};
use eb_testkit::services::TestDatabase;

use super::buses::Bus;

const PROFILE: &str = r#"profile_id: move
policy:
  policy_rev: v0
  partitioning_profiles_ref: ig/partitioning_profiles_v0.yaml
  class_map_ref: ig/class_map_v0.yaml
  schema_policy_ref: ig/schema_policy_v0.yaml
wiring:
  event_bus_kind: rollout
  event_bus:
    create_topics: true
    topics: {fp.bus.traffic.v1: 3, fp.bus.control.v1: 1, fp.bus.audit.v1: 1}
    rollout:
      old: OLD
      new: NEW
      state: STATE
      # What a server that was halted has taken in, it works off as soon as it goes on.
      rest_ms: 1000
      mirror_patience_ms: 1500
      triggers: TRIGGERS
  checkpoint_store: {kind: postgres, url: "DATABASE"}
  admission_index: INDEX
  quarantine: {kind: file, root: "${EB_RUNS}/quarantine"}
"#;

/// How long anything here may take that comes in the end.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Tries again what may be tried again.
async fn patiently<T, F: Future<Output = Result<T, OpenError>>>(mut of: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match of().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_retryable() && Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Which bus is left for which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    RedisToRedis,
    FilesToRedis,
    FilesToKinesis,
    KinesisToRedis,
}

impl Route {
    /// Files take one publisher, whose index is its own; all else several at once, with one index among them.
    pub(super) fn has_several_publishers(self) -> bool {
        matches!(self, Self::RedisToRedis | Self::KinesisToRedis)
    }
}

pub(super) struct Place {
    pub(super) route: Route,
    pub(super) old: Bus,
    pub(super) new: Bus,
    _database: TestDatabase,
    pub(super) folder: tempfile::TempDir,
}

impl Place {
    /// Servers of its own, and the profile with these triggers.
    pub(super) fn new(route: Route, triggers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = || Bus::Files(folder.path().join("old"));
        let (old, new) = match route {
            Route::RedisToRedis => (Bus::redis(), Bus::redis()),
            Route::FilesToRedis => (files(), Bus::redis()),
            Route::FilesToKinesis => (files(), Bus::kinesis()),
            Route::KinesisToRedis => (Bus::kinesis(), Bus::redis()),
        };
        let database = TestDatabase::create().expect("a Postgres to test with");
        let place = Self { route, old, new, _database: database, folder };
        let config = place.folder.path().join("config");
        std::fs::create_dir_all(config.join("platform/profiles")).unwrap();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
        for policies in ["ig", "schemas"] {
            std::os::unix::fs::symlink(ours.join(policies), config.join(policies)).unwrap();
        }
        let url = place._database.url();
        let postgres = format!("{{kind: postgres, url: \"{url}\"}}");
        let folder = place.folder.path().display();
        let (state, index) = if route.has_several_publishers() {
            (postgres.clone(), postgres)
        } else {
            let state = format!("{{kind: file, root: \"{folder}/state\"}}");
            (state, "{kind: embedded, path: \"${EB_RUNS}/index\"}".to_owned())
        };
        let text = PROFILE
            .replace("OLD", &place.old.settings())
            .replace("NEW", &place.new.settings())
            .replace("STATE", &state)
            .replace("TRIGGERS", triggers)
            .replace("DATABASE", &url)
            .replace("INDEX", &index);
        std::fs::write(place.profile(), text).unwrap();
        place
    }

    pub(super) fn profile(&self) -> PathBuf {
        self.folder.path().join("config/platform/profiles/move.yaml")
    }

    /// A folder of a process's own.
    pub(super) fn runs(&self, name: &str) -> PathBuf {
        let runs = self.folder.path().join(name);
        std::fs::create_dir_all(&runs).unwrap();
        runs
    }

    /// The platform, opened in this process; it mirrors and watches like any other.
    pub(super) async fn open(&self, name: &str) -> Platform {
        let env = Env::only([("EB_RUNS", self.runs(name).to_str().unwrap())]);
        let profile = Profile::load_with(self.profile().to_str().unwrap(), &env).unwrap();
        // On a busy machine a server may not answer in the short time that it is given here.
        let platform = patiently(|| Platform::open(profile.clone(), Purpose::Writing)).await;
        patiently(|| async { Ok(platform.ensure_topics().await?) }).await;
        platform
    }

    /// How the rollout stands.
    pub(super) async fn status(platform: &Platform) -> Status {
        let control = platform.rollout().unwrap();
        patiently(|| async { Ok(control.status().await?) }).await
    }

    /// One of the two buses itself, without anything between.
    pub(super) async fn bus(&self, side: Side) -> Box<dyn EventBusReader> {
        match side {
            Side::Old => self.old.reader().await,
            Side::New => self.new.reader().await,
        }
    }
}
