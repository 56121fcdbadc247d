#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vfs_tests::fuzz::sidecar_page::run(data));
