//! What a profile needs to be up: found where it is, or started for the run.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use eb_profile::{AdmissionIndexConfig, BusKind, CheckpointStoreConfig, Profile};
use eb_testkit::services::fleet::{self, Service};
use eb_testkit::services::{LocalStack, Postgres, PostgresOptions, Redis, RedisOptions};

use super::Failure;
use crate::services::environment;

/// The variables of a run, and the servers that are its own: they end with it.
#[derive(Default)]
pub(super) struct Services {
    /// The environment, with what names the services and keeps this run apart from all others.
    pub(super) variables: HashMap<String, String>,
    /// Held until the run has ended.
    own: Own,
}

/// Dropped, they stop.
#[derive(Default)]
struct Own {
    _localstack: Option<LocalStack>,
    _postgres: Option<Postgres>,
    _redis: Option<Redis>,
}

impl Services {
    /// For this profile: those that a variable names, those of `services up`, else its own.
    pub(super) fn of(profile: &Profile) -> Result<Self, Failure> {
        let inherited =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let mut services = Self { variables: inherited.collect(), ..Self::default() };
        let wiring = &profile.wiring;
        let emulator = wiring.event_bus.kinesis.as_ref().and_then(|k| k.endpoint_url.as_deref());
        let needs_kinesis = wiring.event_bus_kind == BusKind::Kinesis
            && emulator.is_some_and(|url| url.starts_with("http://"));
        let needs_postgres = matches!(wiring.checkpoint_store, CheckpointStoreConfig::Postgres(_))
            || matches!(wiring.admission_index, AdmissionIndexConfig::Postgres { .. });
        let mut up = fleet::status();
        up.retain(|running| running.service != Service::KinesisLocal);
        for (name, value) in environment(&up) {
            services.variables.entry(name.to_owned()).or_insert(value);
        }
        if needs_kinesis && !services.has("EB_KINESIS_ENDPOINT_URL") {
            let own = LocalStack::start().map_err(|e| format!("LocalStack cannot be had: {e}"))?;
            services.set("EB_KINESIS_ENDPOINT_URL", own.url());
            services.own._localstack = Some(own);
        }
        if needs_postgres && !services.has("EB_POSTGRES_URL") {
            let own = Postgres::start(&PostgresOptions::default())
                .map_err(|e| format!("Postgres cannot be had: {e}"))?;
            services.set("EB_POSTGRES_URL", own.url());
            services.own._postgres = Some(own);
        }
        if wiring.event_bus_kind == BusKind::Redis && !services.has("EB_REDIS_URL") {
            let own =
                Redis::start(&RedisOptions::default()).map_err(|e| format!("Redis cannot be had: {e}"))?;
            services.set("EB_REDIS_URL", own.url());
            services.own._redis = Some(own);
        }
        // Streams and tables of this run alone, also where the services are shared.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        services.set("EB_STREAM_PREFIX", format!("smoke-{now}-"));
        services.set("EB_POSTGRES_SCHEMA", format!("smoke_{now}"));
        Ok(services)
    }

    fn has(&self, name: &str) -> bool {
        self.variables.get(name).is_some_and(|value| !value.is_empty())
    }

    fn set(&mut self, name: &str, value: String) {
        self.variables.insert(name.to_owned(), value);
    }
}
