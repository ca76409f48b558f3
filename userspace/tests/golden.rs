//! Recordings that are kept in the tree: this version must say of them what was said live when they were made.
//! `tests/golden/README.md` tells how.
#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::{fs, path::PathBuf};

use septwatch::{
    recording::{
        header::Why,
        replay::{Replay, Step},
    },
    view::json,
};
use serde_json::Value;

fn golden() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "swt")).collect();
    files.sort();
    files
}

/// By time: the demo tells violations in that order, a replay in that of their arrival.
fn sorted(mut violations: Vec<Value>) -> Vec<Value> {
    violations.sort_by_key(|violation| (violation["time_ns"].as_u64(), violation.to_string()));
    violations
}

#[test]
fn golden_recordings_tell_what_was_told_live() {
    let files = golden();
    assert!(files.len() >= 4, "{files:?}");
    let mut told = 0;
    for file in files {
        let name = file.display();
        let live = fs::read_to_string(file.with_extension("live.jsonl")).unwrap();
        let live: Vec<Value> = live.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // The demo prints no names of places.
        let named = live.iter().all(|violation| violation.get("kernel_functions").is_some());
        let mut replay = Replay::open(&file).unwrap();
        let mut again = Vec::new();
        for step in replay.by_ref() {
            match step {
                Step::Event { found: Some(found), .. } => {
                    let mut object = json::violation(&found.0, &found.1);
                    if !named {
                        object.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_functions"));
                    }
                    again.push(object);
                }
                Step::Damage(damage) => unreachable!("{name}: {damage}"),
                _ => {}
            }
        }
        assert!(!live.is_empty(), "{name}");
        told += live.len();
        assert_eq!(sorted(again), sorted(live), "{name}");
        let standing = replay.standing();
        assert!(standing.vital.is_exact() && standing.pages.is_exact(), "{name}: {standing:?}");
        assert!(matches!(replay.end().unwrap().why, Why::Stopped | Why::CommandEnded), "{name}");
        assert_eq!(replay.unreadable(), 0, "{name}");
        let differences = replay.differences();
        assert!(differences.is_none() && differences.agreed > 0, "{name}: {differences:?}");
    }
    assert!(told >= 10, "{told}");
}
