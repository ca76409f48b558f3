//! Makes seeds of recordings: `seeds FOLDER FILE...`. Of each file itself, and of what is in its frames.

mod reading;

use std::{env, fs, path::Path};

use reading::{FILE, FRAMES, MENDED, Part, parts};
use septwatch::{
    model::store::snapshot::Snapshot,
    recording::{State, frame::Kind, reader::Reader, replay::Replay},
};

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [folder, files @ ..] = &arguments[..] else { panic!("usage: seeds FOLDER FILE...") };
    for file in files {
        let path = Path::new(file);
        let name = path.file_stem().unwrap().to_str().unwrap();
        let bytes = fs::read(path).unwrap();
        let write = |what: &str, mode: u8, rest: &[u8]| {
            let seed = Path::new(folder).join(format!("{name}.{what}.seed"));
            let input = [&[mode], rest].concat();
            assert!(reading::read(&input).is_some_and(|came| came.opened), "{}: not read", seed.display());
            fs::write(seed, input).unwrap();
        };
        write("file", FILE, &bytes);
        write("mended", MENDED, &bytes);
        let listed = |Part { kind, raw, .. }: &Part| {
            let length = u16::try_from(raw.len()).expect("a recording with small frames");
            [&[*kind as u8][..], &length.to_le_bytes(), raw].concat()
        };
        write("frames", FRAMES, &parts(&bytes).iter().flat_map(listed).collect::<Vec<_>>());
        for kind in [Kind::Header, Kind::Records, Kind::End] {
            let of = parts(&bytes).into_iter().filter(|part| part.kind == kind);
            // Joined they would be no frame: the differences of each begin anew. The largest says most.
            let Some(part) = of.max_by_key(|part| part.raw.len()) else { continue };
            let what = format!("{kind:?}").to_lowercase();
            write(&what, kind as u8, &part.raw);
        }
        write("state", Kind::State as u8, &fullest(&bytes).to_bytes());
    }
}

/// The ledger when most of it was in use, as the next file of a rotated recording begins with it.
fn fullest(bytes: &[u8]) -> State {
    let mut replay = Replay::new(Reader::new(bytes, Path::new("a.swt")).unwrap());
    let mut fullest = replay.ledger().snapshot();
    while replay.advance().is_some() {
        let now = replay.ledger().snapshot();
        let full = |state: &Snapshot| state.lines.len() + state.zaps.len();
        if full(&now) > full(&fullest) {
            fullest = now;
        }
    }
    State { tds: Vec::new(), ledger: Some(fullest) }
}
