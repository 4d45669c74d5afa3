//! What a profile needs to be up: found where it is, or started for the run.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use eb_profile::{AdmissionIndexConfig, BusKind, CheckpointStoreConfig, Profile};
use eb_testkit::services::fleet::{self, Service};
use eb_testkit::services::{LocalStack, Postgres, PostgresOptions, Redis, RedisOptions};

use super::Failure;
use super::leftovers::{Names, Server};
use crate::services::environment;

/// The variables of a run, and the servers that are its own: they end with it.
#[derive(Default)]
pub(super) struct Services {
    /// The environment, with what names the services and keeps this run apart from all others.
    pub(super) variables: HashMap<String, String>,
    /// Held until the run has ended.
    own: Own,
    /// Those that were there before, and what is this run's on them.
    shared: Vec<Server>,
    names: Option<Names>,
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
        if let Some(url) = services.given("EB_KINESIS_ENDPOINT_URL").filter(|_| needs_kinesis) {
            services.shared.push(Server::Kinesis(url));
        } else if needs_kinesis {
            let own = LocalStack::start().map_err(|e| format!("LocalStack cannot be had: {e}"))?;
            services.set("EB_KINESIS_ENDPOINT_URL", own.url());
            services.own._localstack = Some(own);
        }
        if let Some(url) = services.given("EB_POSTGRES_URL").filter(|_| needs_postgres) {
            services.shared.push(Server::Postgres(url));
        } else if needs_postgres {
            let own = Postgres::start(&PostgresOptions::default())
                .map_err(|e| format!("Postgres cannot be had: {e}"))?;
            services.set("EB_POSTGRES_URL", own.url());
            services.own._postgres = Some(own);
        }
        let needs_redis = wiring.event_bus_kind == BusKind::Redis;
        if let Some(url) = services.given("EB_REDIS_URL").filter(|_| needs_redis) {
            services.shared.push(Server::Redis(url));
        } else if needs_redis {
            let own =
                Redis::start(&RedisOptions::default()).map_err(|e| format!("Redis cannot be had: {e}"))?;
            services.set("EB_REDIS_URL", own.url());
            services.own._redis = Some(own);
        }
        // Streams and tables of this run alone, also where the services are shared.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let names = Names { prefix: format!("smoke-{now}-"), schema: format!("smoke_{now}") };
        services.set("EB_STREAM_PREFIX", names.prefix.clone());
        services.set("EB_POSTGRES_SCHEMA", names.schema.clone());
        services.names = Some(names);
        Ok(services)
    }

    /// Removes what the run has made on servers that go on without it. Dropping the future leaves some of it.
    pub(super) async fn clear(&self) -> Result<(), Failure> {
        let Some(names) = &self.names else { return Ok(()) };
        for server in &self.shared {
            let stays = |e| format!("what the run made as {}* stays there: {e}", names.prefix);
            server.clear(names).await.map_err(stays)?;
        }
        Ok(())
    }

    fn given(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn set(&mut self, name: &str, value: String) {
        self.variables.insert(name.to_owned(), value);
    }
}
