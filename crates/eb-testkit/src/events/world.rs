//! The world that the events tell of: merchants, cards, devices, a run, and its time.

use time::OffsetDateTime;

use super::json::{Object, Value};
use super::kinds::EventType;
use super::word;
use crate::Rng;

const MERCHANTS: u64 = 400;
const CARDS: u64 = 20_000;

const NAMES: &[&str] = &[
    "Café Zürich Süd",
    "Corner Shop",
    "Łódź Księgarnia",
    "東京ラーメン",
    "Магазин «Нева»",
    "متجر النور",
    "Crêperie d'Été",
    "O’Brien & Söhne",
    "𝕏-treme Sports",
    "The \"Old\" Mill",
    "Back\\slash Records",
    "Δελφοί Books",
    "पुस्तक भंडार",
    "Smörgås & Co",
    "Grocers 24/7",
    "Pelmeni 🥟 House",
];
const CITIES: &[(&str, &str)] = &[
    ("Zürich", "CH"),
    ("London", "GB"),
    ("Kraków", "PL"),
    ("東京", "JP"),
    ("São Paulo", "BR"),
    ("Malmö", "SE"),
    ("Αθήνα", "GR"),
    ("Austin", "US"),
];
const CURRENCIES: &[&str] = &["EUR", "GBP", "USD", "CHF", "JPY", "PLN"];
const NETWORKS: &[&str] = &["visa", "mastercard", "amex", "jcb"];
const DECLINES: &[&str] =
    &["insufficient_funds", "do_not_honour", "expired_card", "suspected_fraud", "pin_tries_exceeded"];
const MCCS: &[u64] = &[5411, 5812, 5942, 5541, 5732, 4111, 7011, 5999];
const PLATFORMS: &[&str] = &["ios", "android", "web"];

#[derive(Debug, Clone)]
struct Merchant {
    id: String,
    name: String,
    mcc: u64,
    city: &'static str,
    country: &'static str,
    currency: &'static str,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    seed: u64,
    manifest_fingerprint: String,
    parameter_hash: String,
    scenario_id: Value,
    pub(super) run_id: String,
    platform_run_id: String,
    scenario_run_id: String,
    merchants: Vec<Merchant>,
    /// Summed weights of the merchants: the r-th has the weight 1/r.
    weights: Vec<u64>,
    now_micros: i64,
    /// The latest authorised transactions: event, transaction and merchant.
    authorised: Vec<(String, String, usize)>,
    made: u64,
}

impl World {
    pub(super) fn new(seed: u64, rng: &mut Rng) -> Self {
        let merchants = (0..MERCHANTS)
            .map(|n| {
                let (city, country) = *rng.pick(CITIES);
                Merchant {
                    id: format!("m_{n:06}"),
                    name: format!("{} {}", word(rng, NAMES), n),
                    mcc: *rng.pick(MCCS),
                    city,
                    country,
                    currency: word(rng, CURRENCIES),
                }
            })
            .collect();
        let mut sum = 0;
        let weights = (1..=MERCHANTS)
            .map(|rank| {
                sum += 1_000_000 / rank;
                sum
            })
            .collect();
        // A moment in the first 300 days of 2026.
        let start = 1_767_225_600 + (Rng::new(seed).range(0..300 * 86_400)).cast_signed();
        let started = parts(start * 1_000_000);
        Self {
            seed,
            manifest_fingerprint: hex(rng, 64),
            parameter_hash: hex(rng, 64),
            scenario_id: if rng.chance(50) { "baseline_v2".into() } else { rng.range(1..1000).into() },
            run_id: hex(rng, 32),
            platform_run_id: format!(
                "platform_{:04}{:02}{:02}T{:02}{:02}{:02}Z",
                started.year(),
                u8::from(started.month()),
                started.day(),
                started.hour(),
                started.minute(),
                started.second()
            ),
            scenario_run_id: hex(rng, 32),
            merchants,
            weights,
            now_micros: start * 1_000_000,
            authorised: Vec::new(),
            made: 0,
        }
    }

    fn merchant(&self, rng: &mut Rng) -> usize {
        let draw = rng.range(0..self.weights[self.weights.len() - 1]);
        self.weights.partition_point(|sum| *sum <= draw)
    }

    /// The next event of this type: its envelope, its id and its merchant's id, if it has one.
    pub(super) fn envelope(
        &mut self,
        event_type: &'static EventType,
        large: bool,
        rng: &mut Rng,
    ) -> (Object, String, Option<String>) {
        self.made += 1;
        self.now_micros += rng.range(50..20_000).cast_signed();
        // Some producers' events come late.
        let late = if rng.chance(10) { rng.range(0..2_000_000).cast_signed() } else { 0 };
        let ts = self.now_micros - late;
        let event_id = event_id(rng);

        let mut parent = None;
        let (payload, merchant) = match event_type.name {
            "card.transaction.settled" | "card.refund.issued" if !self.authorised.is_empty() => {
                let (event, transaction, merchant) = rng.pick(&self.authorised).clone();
                parent = Some(event);
                (self.follow_up(event_type, &transaction, merchant, rng), Some(merchant))
            }
            name if name.starts_with("card.") => {
                let merchant = self.merchant(rng);
                let transaction = format!("txn_{:012}", self.made);
                if name == "card.transaction.authorised" {
                    if self.authorised.len() == 64 {
                        self.authorised.remove(0);
                    }
                    self.authorised.push((event_id.clone(), transaction.clone(), merchant));
                }
                (self.transaction(name, &transaction, merchant, rng), Some(merchant))
            }
            name if name.starts_with("merchant.") => {
                let merchant = self.merchant(rng);
                (self.merchant_event(merchant, large, rng), Some(merchant))
            }
            name => (self.other(name, rng), None),
        };

        let mut envelope = Object::default()
            .with("event_id", event_id.as_str())
            .with("event_type", event_type.name)
            .with("ts_utc", utc(ts))
            .with("manifest_fingerprint", self.manifest_fingerprint.as_str())
            .with("parameter_hash", self.parameter_hash.as_str())
            .with("seed", self.seed)
            .with("scenario_id", self.scenario_id.clone())
            .with("run_id", self.run_id.as_str())
            .with("platform_run_id", self.platform_run_id.as_str());
        if rng.chance(20) {
            envelope.push("scenario_run_id", self.scenario_run_id.as_str().into());
            envelope.push("emitted_at_utc", utc(self.now_micros).into());
            envelope.push("trace_id", hex(rng, 32).into());
            envelope.push("span_id", hex(rng, 16).into());
        }
        envelope.push("schema_version", event_type.schema_version.into());
        if let Some(parent) = parent {
            envelope.push("parent_event_id", parent.into());
        }
        envelope.push("producer", event_type.producer.into());
        envelope.push("source_module", event_type.source_module.into());
        envelope.push("payload", payload.into());
        let merchant = merchant.map(|merchant| self.merchants[merchant].id.clone());
        (envelope, event_id, merchant)
    }

    fn transaction(&self, name: &str, transaction: &str, merchant: usize, rng: &mut Rng) -> Object {
        let m = &self.merchants[merchant];
        let payload = Object::default()
            .with("transaction_id", transaction)
            .with("merchant_id", m.id.as_str())
            .with("merchant_name", m.name.as_str())
            .with("amount", money(rng))
            .with("currency", m.currency)
            .with("mcc", m.mcc)
            .with("card", card(rng));
        if name == "card.transaction.declined" {
            payload
                .with("reason", word(rng, DECLINES))
                .with("risk_score", Value::Raw(format!("0.{:04}", rng.range(0..10_000))))
        } else {
            payload.with("approval_code", format!("{:06}", rng.range(0..1_000_000)))
        }
    }

    fn follow_up(&self, of: &EventType, transaction: &str, merchant: usize, rng: &mut Rng) -> Object {
        let m = &self.merchants[merchant];
        let payload = Object::default()
            .with("transaction_id", transaction)
            .with("merchant_id", m.id.as_str())
            .with("amount", money(rng))
            .with("currency", m.currency);
        if of.name == "card.refund.issued" {
            payload.with("reason", "customer_request").with("partial", rng.chance(30))
        } else {
            payload
                .with("batch", format!("b_{:05}", self.made / 500))
                .with("interchange_bps", rng.range(20..320))
        }
    }

    fn merchant_event(&self, merchant: usize, large: bool, rng: &mut Rng) -> Object {
        let m = &self.merchants[merchant];
        let mut payload = Object::default()
            .with("merchant_id", m.id.as_str())
            .with("merchant_name", m.name.as_str())
            .with("mcc", m.mcc)
            .with("address", Object::default().with("city", m.city).with("country", m.country));
        if large {
            // About 100 bytes a line.
            let lines = (0..rng.range(80..640)).map(|n| {
                let line = Object::default()
                    .with("line", n)
                    .with("transaction_id", format!("txn_{:012}", rng.range(0..self.made)))
                    .with("amount", money(rng))
                    .with("card", format!("tok_{:06}", rng.range(0..CARDS)))
                    .with("note", word(rng, NAMES));
                Value::Object(line)
            });
            payload.push("lines", Value::Array(lines.collect()));
        }
        payload
    }

    fn other(&self, name: &str, rng: &mut Rng) -> Object {
        let account = format!("acc_{:06}", rng.range(0..CARDS));
        match name {
            "device.session.opened" | "device.session.closed" => {
                let payload = Object::default()
                    .with("session_id", hex(rng, 24))
                    .with("device_id", format!("dev_{:06}", rng.range(0..CARDS)))
                    .with("account_id", account)
                    .with("platform", word(rng, PLATFORMS))
                    .with("ip", format!("203.0.113.{}", rng.range(1..255)));
                if name.ends_with("closed") {
                    payload.with("duration_ms", rng.range(100..3_600_000)).with("screens", rng.range(1..40))
                } else {
                    payload.with("jailbroken", rng.chance(2))
                }
            }
            "customer.account.updated" => {
                let (city, country) = *rng.pick(CITIES);
                Object::default()
                    .with("account_id", account)
                    .with("changed", Value::Array(vec!["address".into(), "phone".into()]))
                    .with("address", Object::default().with("city", city).with("country", country))
                    .with("previous", Value::Raw("null".to_owned()))
            }
            name if name.starts_with("audit.") => Object::default()
                .with("actor", format!("operator-{}", rng.range(1..40)))
                .with("object", format!("policy/{}", rng.range(1..9)))
                .with("ticket", format!("OPS-{}", rng.range(1000..9999)))
                .with("note", "Änderung geprüft\u{2028}und freigegeben"),
            _ => Object::default()
                .with("phase", name.rsplit('.').next().unwrap_or_default())
                .with("events_so_far", self.made)
                .with("progress", Value::Raw(format!("{}e-3", rng.range(0..1000)))),
        }
    }
}

fn card(rng: &mut Rng) -> Object {
    let number = rng.range(0..CARDS);
    Object::default()
        .with("token", format!("tok_{number:06}"))
        .with("network", NETWORKS[(number % NETWORKS.len() as u64) as usize])
        .with("last4", format!("{:04}", number % 10_000))
        .with("present", rng.chance(60))
}

/// An amount with its cents as written: `12.50`, not `12.5`.
fn money(rng: &mut Rng) -> Value {
    let whole = if rng.chance(3) { rng.range(1_000..50_000) } else { rng.range(1..250) };
    Value::Raw(format!("{whole}.{:02}", rng.range(0..100)))
}

/// Ids as producers form them: mostly UUIDs, some of 32 or 64 hexadecimal digits.
fn event_id(rng: &mut Rng) -> String {
    match rng.range(0..10) {
        0 => hex(rng, 32),
        1 => hex(rng, 64),
        _ => {
            let (a, b) = (rng.next_u64(), rng.next_u64());
            format!(
                "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
                a >> 32,
                a >> 16 & 0xffff,
                a & 0xfff,
                b >> 52,
                b & 0xffff_ffff_ffff
            )
        }
    }
}

fn hex(rng: &mut Rng, digits: usize) -> String {
    let mut text = String::with_capacity(digits);
    while text.len() < digits {
        text.push_str(&format!("{:016x}", rng.next_u64()));
    }
    text.truncate(digits);
    text
}

fn parts(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
        .expect("the generator's times lie in this century")
}

pub(super) fn utc(micros: i64) -> String {
    let at = parts(micros);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.microsecond()
    )
}
