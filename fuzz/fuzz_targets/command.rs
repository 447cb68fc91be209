#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bulkhead_fuzz::command(input);
});
