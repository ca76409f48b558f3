//! Recordings from an unknown hand, through everything that reads one.
#![no_main]

#[path = "../reading.rs"]
mod reading;

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    if reading::read(input).is_some() { Corpus::Keep } else { Corpus::Reject }
});
