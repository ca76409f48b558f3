//! The fuzz target's function on its seeds, without libFuzzer: see tests/fuzz.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot unwrap has failed")]

#[path = "../../tests/fuzz/reading.rs"]
mod reading;

use std::{fs, path::Path};

use reading::{Came, FILE, FRAMES, MENDED, read};
use septwatch::recording::frame::Kind;

/// The seeds, by name.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/recording");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let seeds = files.filter(|path| path.extension().is_some_and(|extension| extension == "seed"));
    seeds.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

#[test]
fn every_seed_is_read_to_its_end() {
    let seeds = seeds();
    let kinds = [Kind::Header, Kind::Records, Kind::State, Kind::End].map(|kind| kind as u8);
    for mode in [FILE, MENDED, FRAMES].into_iter().chain(kinds) {
        assert!(seeds.iter().any(|(_, seed)| seed[0] == mode), "no seed begins with {mode}");
    }
    for (name, seed) in seeds {
        let came = read(&seed).unwrap();
        assert!(came.opened && came.events >= 10 && came.damages == 0, "{name}: {came:?}");
    }
}

#[test]
fn a_change_shows_where_the_checksums_let_it() {
    let (_, file) = seeds().into_iter().find(|(name, _)| name.ends_with("clean.file.seed")).unwrap();
    let whole = read(&file).unwrap();
    // In the number of the last frame's head, so that it comes too late.
    let end = file.windows(4).rposition(|bytes| bytes == b"swtf").unwrap();
    let mut changed = file;
    changed[end + 8] += 1;
    assert_eq!(read(&changed), Some(Came { damages: 1, ..whole }));
    changed[0] = MENDED;
    assert_eq!(read(&changed), Some(Came { damages: 1, ..whole }));
    // As a file it is damaged, as the contents of a header it is none, and 7 says nothing.
    changed[0] = Kind::Header as u8;
    assert_eq!(read(&changed), Some(Came::default()));
    changed[0] = 7;
    assert_eq!(read(&changed), None);
}
