#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay_log_store::fuzzing::marks(bytes));
