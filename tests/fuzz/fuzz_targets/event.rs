#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::catch_panics(), |data: &[u8]| countersign_fuzz::targets::event(data));
