//! Time per event of everything that admission asks of this crate, in nanoseconds, on one core.
//!
//! `cargo run --release -p canonical-envelope --example timing`

use std::hint::black_box;
use std::time::Instant;

use canonical_envelope::{Envelope, EnvelopeBuilder, KeyPath};

const ROUNDS: usize = 7;
const EVENTS: usize = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let payload = r#"{"transaction_id":"txn_000000918273","merchant_id":"m_000412","merchant_name":"Café Zürich Süd","amount":128.50,"currency":"EUR","card":{"token":"tok_4f9a1c22","network":"visa","last4":"4242","present":true},"mcc":5812,"terminal_id":"t-0091"}"#;
    let compact = EnvelopeBuilder::new("card.transaction.authorised")
        .event_id("018f6b1e-9c7a-7d0f-8e2b-3c4d5e6f7081")
        .ts_utc(time::OffsetDateTime::UNIX_EPOCH)
        .manifest_fingerprint("a1".repeat(32))
        .parameter_hash("b2".repeat(32))
        .seed(1_234_567)
        .scenario_id("baseline")
        .run_id("c3".repeat(16))
        .schema_version("1.0.0")
        .payload_json(payload)
        .build()?;
    let spaced = {
        let value: serde_json::Value = serde_json::from_slice(&compact)?;
        serde_json::to_vec_pretty(&value)?
    };
    let path: KeyPath = "payload.merchant_id".parse()?;
    let (mut out, mut scratch) = (Vec::new(), Vec::new());

    println!("{:<22}{:>8} bytes compact{:>4} bytes spaced", "median, best", compact.len(), spaced.len());
    let row = |name: &str, work: &mut dyn FnMut(&[u8])| {
        print!("{name:<22}");
        for input in [&compact, &spaced] {
            let mut rounds: Vec<u128> = (0..ROUNDS)
                .map(|_| {
                    let start = Instant::now();
                    for _ in 0..EVENTS {
                        work(black_box(input));
                    }
                    start.elapsed().as_nanos() / EVENTS as u128
                })
                .collect();
            rounds.sort_unstable();
            print!("{:>8}{:>6}", rounds[ROUNDS / 2], rounds[0]);
        }
        println!();
    };
    row("utf-8 alone", &mut |input| _ = black_box(std::str::from_utf8(input)));
    row("parse", &mut |input| _ = black_box(parse(input)));
    row("parse + canonical", &mut |input| {
        out.clear();
        parse(input).write_canonical(&mut out);
        black_box(&out);
    });
    row("parse + dedupe key", &mut |input| _ = black_box(parse(input).dedupe_key()));
    row("parse + payload hash", &mut |input| _ = black_box(parse(input).payload_hash(&mut scratch)));
    row("all, and key look-up", &mut |input| {
        let envelope = parse(input);
        out.clear();
        envelope.write_canonical(&mut out);
        black_box((&out, envelope.dedupe_key(), envelope.payload_hash(&mut scratch), envelope.scalar(&path)));
    });
    Ok(())
}

fn parse(input: &[u8]) -> Envelope<'_> {
    Envelope::parse(input).expect("the example's own event is valid")
}
