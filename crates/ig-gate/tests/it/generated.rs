//! Realistic events against the shipped policy: the gate answers each as the generator says a correct gate must.

use std::collections::HashMap;

use eb_testkit::events::{Expected, Generator, Mix};
use ig_gate::Decision;

use crate::support::{World, config_file, shipped_policy};

#[tokio::test]
async fn every_generated_event_gets_the_answer_that_a_correct_gate_gives() {
    let schema = serde_json::from_slice(&config_file("schemas/ingestion_receipt.schema.json")).unwrap();
    let validator = jsonschema::options().offline().build(&schema).unwrap();
    for seed in [1, 2026] {
        let mut world = World::new().await;
        world.policy = shipped_policy();
        let gate = world.open().await;
        let mut places = HashMap::new();
        let mix = Mix { invalid: 200, conflicting: 40, ..Mix::default() };
        for (n, event) in Generator::new(seed, mix).take(1500).enumerate() {
            let receipt = gate.admit(event.bytes.clone()).await.unwrap();
            let reasons: Vec<_> = receipt.reason_codes.iter().map(|r| r.as_str()).collect();
            let seen = || format!("event {n} of seed {seed}, {:?}: {receipt:?}", event.origin);
            match event.expected {
                Expected::Admit => {
                    assert_eq!(receipt.decision, Decision::Admit, "{}", seen());
                    assert_eq!(
                        receipt.partition_key.as_ref().unwrap().as_str(),
                        event.partition_key,
                        "{}",
                        seen()
                    );
                    assert_eq!(receipt.class.as_deref(), Some(event.event_type.class.name()));
                    places.insert(n, receipt.eb_ref.clone());
                }
                Expected::DuplicateOf(first) => {
                    assert_eq!(receipt.decision, Decision::Duplicate, "{}", seen());
                    assert_eq!(receipt.eb_ref, places[&first], "{}", seen());
                }
                Expected::Quarantine(reason) => {
                    assert_eq!(
                        (receipt.decision, reasons),
                        (Decision::Quarantine, vec![reason]),
                        "{}",
                        seen()
                    );
                }
            }
            if n < 300 {
                let value = serde_json::from_str(&serde_json::to_string(&receipt).unwrap()).unwrap();
                assert!(validator.is_valid(&value), "{}", seen());
            }
        }
    }
}
