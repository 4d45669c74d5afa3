//! What several processes share in a suite: a bus on Kinesis and a Postgres. How a child is told where they are, and how
//! it opens a gate or a consumer on them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eb_checkpoint_pg::{PgAdmissionIndex, PgConfig, PgIndexConfig};
use eb_contract::Topic;
use eb_file::{FileBus, FileBusConfig};
use eb_kinesis::{KinesisBus, KinesisConfig, StreamNames, Timeouts};
use eb_testkit::events::{Generator, Mix};
use ig_gate::policy::{PolicyFile, PolicyFiles};
use ig_gate::{Gate, GateConfig, GateParts, LogQuarantine, Policy};

/// Anything that goes wrong while a suite sets itself up.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Where everything is, and how this process behaves. Handed to children as `name=value` arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The Kinesis endpoint.
    pub kinesis: String,
    /// What the names of this suite's streams begin with.
    pub prefix: String,
    /// The Postgres.
    pub postgres: String,
    /// The schema of this suite.
    pub schema: String,
    /// The process's own name.
    pub name: String,
    /// A folder that is there: a gate's evidence, a consumer's log.
    pub folder: String,
    /// Of the events.
    pub seed: u64,
    /// How many events.
    pub count: usize,
    /// How many are in flight at once.
    pub window: usize,
    /// After so many commits a consumer waits for a line, or the end, of its standard input; never for 0.
    pub hold_after: usize,
    /// The lease of its reservations, in milliseconds.
    pub lease_ms: u64,
    /// Its deadline for unknown outcomes, in milliseconds.
    pub deadline_ms: u64,
    /// How long its bus waits for one answer, in milliseconds.
    pub patience_ms: u64,
}

impl Setup {
    /// Adds itself to a child's command line.
    pub fn tell<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let Self { kinesis, prefix, postgres, schema, name, folder, .. } = self;
        let texts = [
            ("kinesis", kinesis),
            ("prefix", prefix),
            ("postgres", postgres),
            ("schema", schema),
            ("name", name),
            ("folder", folder),
        ];
        let numbers = [
            ("seed", self.seed),
            ("count", self.count as u64),
            ("window", self.window as u64),
            ("hold_after", self.hold_after as u64),
            ("lease_ms", self.lease_ms),
            ("deadline_ms", self.deadline_ms),
            ("patience_ms", self.patience_ms),
        ];
        command
            .args(texts.map(|(name, value)| format!("{name}={value}")))
            .args(numbers.map(|(name, value)| format!("{name}={value}")))
    }

    /// Reads what [`Setup::tell`] has written.
    ///
    /// # Errors
    /// Naming what is missing.
    pub fn hear(args: impl Iterator<Item = String>) -> Result<Self, Failed> {
        let args: Vec<String> = args.collect();
        let given: BTreeMap<&str, &str> = args.iter().filter_map(|arg| arg.split_once('=')).collect();
        let text =
            |name: &str| given.get(name).map(|v| (*v).to_owned()).ok_or(format!("{name}=… is missing"));
        let number = |name: &str| -> Result<u64, Failed> { Ok(text(name)?.parse()?) };
        Ok(Self {
            kinesis: text("kinesis")?,
            prefix: text("prefix")?,
            postgres: text("postgres")?,
            schema: text("schema")?,
            name: text("name")?,
            folder: text("folder")?,
            seed: number("seed")?,
            count: usize::try_from(number("count")?)?,
            window: usize::try_from(number("window")?)?,
            hold_after: usize::try_from(number("hold_after")?)?,
            lease_ms: number("lease_ms")?,
            deadline_ms: number("deadline_ms")?,
            patience_ms: number("patience_ms")?,
        })
    }

    /// The events that every gate of the suite is sent: valid ones, each once.
    pub fn events(&self) -> impl Iterator<Item = Bytes> + use<> {
        Generator::new(self.seed, Mix::CLEAN).take(self.count).map(|event| Bytes::from(event.bytes))
    }

    /// The database, as this suite uses it.
    #[must_use]
    pub fn database(&self) -> PgConfig {
        PgConfig { schema: self.schema.clone(), max_connections: 6, ..PgConfig::new(&self.postgres) }
    }

    /// The bus, on the current runtime.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn bus(&self) -> Result<KinesisBus, Failed> {
        let streams = StreamNames { prefix: self.prefix.clone(), ..StreamNames::default() };
        let patience = Duration::from_millis(self.patience_ms);
        let emulator = KinesisConfig::emulator(&self.kinesis);
        let timeouts = Timeouts { attempt: patience, ..emulator.timeouts };
        Ok(KinesisBus::open(KinesisConfig { streams, timeouts, ..emulator }).await?)
    }

    /// The index, as a gate of this name has it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn index(&self) -> Result<PgAdmissionIndex, Failed> {
        let lease = Duration::from_millis(self.lease_ms);
        let config = PgIndexConfig { lease, ..PgIndexConfig::new(&self.name) };
        Ok(PgAdmissionIndex::open(&self.database(), &config).await?)
    }

    /// A gate; its evidence goes to files below the folder, under the process's id.
    ///
    /// # Errors
    /// When a part of it cannot be opened.
    pub async fn gate(&self) -> Result<Gate, Failed> {
        let bus = self.bus().await?;
        let place = Path::new(&self.folder).join(format!("evidence-{}-{}", self.name, std::process::id()));
        let evidence = FileBus::open(FileBusConfig::new(place))?;
        let kept = Topic::new("ig.quarantine.v1")?;
        evidence.create_topic(&kept, 1)?;
        let (writer, reader) = (Arc::new(evidence.publisher()), Arc::new(evidence.reader()));
        Ok(Gate::open(GateParts {
            publisher: Arc::new(bus.publisher()),
            reader: Arc::new(bus.reader()),
            index: Arc::new(self.index().await?),
            quarantine: Arc::new(LogQuarantine::new(
                writer,
                reader,
                kept,
                LogQuarantine::DEFAULT_PREFIX_BYTES,
            )),
            policy: policy()?,
            config: GateConfig {
                unknown_deadline: Duration::from_millis(self.deadline_ms),
                ..GateConfig::default()
            },
        })
        .await?)
    }
}

/// The policy that the project ships.
///
/// # Errors
/// When a file of it cannot be read.
pub fn policy() -> Result<Policy, Failed> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let read = |name: &str| std::fs::read(config.join("ig").join(name));
    let (partitioning, class_map, schema_policy) =
        (read("partitioning_profiles_v0.yaml")?, read("class_map_v0.yaml")?, read("schema_policy_v0.yaml")?);
    let files = PolicyFiles {
        policy_id: "ig.policy",
        revision: "v0",
        partitioning: PolicyFile { name: "partitioning_profiles_v0.yaml", bytes: &partitioning },
        class_map: PolicyFile { name: "class_map_v0.yaml", bytes: &class_map },
        schema_policy: PolicyFile { name: "schema_policy_v0.yaml", bytes: &schema_policy },
    };
    let source = |path: &str| std::fs::read(config.join("schemas").join(path)).map_err(|e| e.to_string());
    Ok(Policy::load(files, &source)?)
}
