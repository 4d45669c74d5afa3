//! The fuzzers' kept corpus, replayed.

use std::path::Path;

use eb_system_tests::fuzz::TARGETS;

#[test]
fn the_kept_corpus_of_every_fuzz_target_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let folder = corpus.join(name);
        let mut inputs: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has a corpus");
        for input in &inputs {
            let bytes = std::fs::read(input).unwrap();
            let held = std::panic::catch_unwind(|| target(&bytes));
            assert!(held.is_ok(), "{name} does not hold for {}", input.display());
        }
        println!("{name}: {} inputs", inputs.len());
    }
}

/// What replays must also be worth replaying: each target is reached beyond its first check.
#[test]
fn every_fuzz_target_takes_empty_and_arbitrary_bytes() {
    let mut rng = eb_testkit::Rng::new(1);
    for (_, target) in TARGETS {
        target(&[]);
        for len in [1, 2, 16, 600] {
            let bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            target(&bytes);
        }
    }
}
