#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| eb_system_tests::fuzz::checkpoint(data));
