//! `septwatch explain` on kernel logs: each `fixtures/explain/NAME.log` against the text beside it.
//!
//! With SEPTWATCH_BLESS=1 the expected texts are written anew; read the difference before committing it.
#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use septwatch::commands::explain::{Args, explain};

fn run(args: &[&str], json: bool, input: &[u8]) -> (u8, String, String) {
    let (mut words, mut leaf) = (Vec::new(), None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match *arg {
            "--leaf" => leaf = rest.next().map(|leaf| (*leaf).to_owned()),
            word => words.push(word.to_owned()),
        }
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = explain(&Args { words, leaf, json }, input, &mut out, &mut err).unwrap();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/explain");
    let mut logs: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    logs
}

#[test]
fn logs_are_explained_as_expected() {
    let logs = fixtures();
    assert!(logs.len() >= 8, "the corpus is there");
    for log in logs {
        let (code, out, err) = run(&[], false, &std::fs::read(&log).unwrap());
        let expected = log.with_extension("expected");
        if std::env::var_os("SEPTWATCH_BLESS").is_some() {
            std::fs::write(&expected, &out).unwrap();
        }
        assert_eq!((code, err.as_str()), (0, ""), "{}", log.display());
        assert_eq!(out, std::fs::read_to_string(&expected).unwrap(), "{}", log.display());
        assert!(out.chars().all(|letter| letter == '\n' || !letter.is_control()), "{}", log.display());
    }
}

#[test]
fn json_has_one_object_a_finding() {
    for log in fixtures() {
        let input = std::fs::read(&log).unwrap();
        let (_, text, _) = run(&[], false, &input);
        let (_, out, _) = run(&[], true, &input);
        let records: Vec<serde_json::Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), text.lines().filter(|line| line.starts_with("> ")).count());
        assert!(records.iter().all(|record| record["kind"].is_string() && record["line"].is_string()));
    }
}

#[test]
fn the_word_of_the_manual() {
    let (code, out, err) = run(&["0xC0000B0800000001", "--leaf", "29"], false, b"");
    assert_eq!((code, err.as_str()), (0, ""));
    let first = out.lines().next().unwrap();
    assert_eq!(first, "TDX_TLB_TRACKING_NOT_DONE (0xc0000b0800000001, operand RCX)");
    for needed in [
        "TDH.MEM.PAGE.REMOVE (29)",
        "BLOCK was done",
        "zap-failed",
        "freed-while-blocked",
        "up to 6.18",
        "from 6.19",
    ] {
        assert!(out.contains(needed), "{needed} is missing in\n{out}");
    }
    let by_name = run(&["TDX_TLB_TRACKING_NOT_DONE|RCX", "--leaf", "tdh_mem_page_remove"], false, b"");
    assert_eq!(by_name.1, out);
}

#[test]
fn without_a_leaf_every_leaf_that_answers_so_is_listed() {
    let (code, out, _) = run(&["TDX_PAGE_METADATA_INCORRECT|R8"], false, b"");
    assert_eq!(code, 0);
    for leaf in ["TDH.MEM.SEPT.ADD", "TDH.MEM.PAGE.ADD", "TDH.MEM.PAGE.AUG"] {
        assert!(out.contains(leaf), "{leaf} is missing in\n{out}");
    }
    assert!(!out.contains("TDH.MEM.TRACK"));
    assert!(out.contains("--leaf"), "says how to learn what KVM does");
    let (code, out, _) = run(&["0"], false, b"");
    assert_eq!((code, out.contains("did what it was asked for")), (0, true));
}

#[test]
fn a_word_of_no_table_is_said_to_be_one() {
    let (code, out, err) = run(&["0xdeadbeef00000000", "0xc0000b0800000001"], false, b"");
    assert_eq!(code, 2);
    assert!(out.starts_with("unnamed status (0xdeadbeef00000000"), "{out}");
    assert!(out.contains("TDX_TLB_TRACKING_NOT_DONE"), "the other word is explained all the same");
    assert!(err.contains("0xdeadbeef00000000 is in no table"), "{err}");
}

#[test]
fn bad_words_and_leaves_are_named() {
    for (args, needed) in [
        (&["hello"][..], "`hello` is no status word"),
        (&["0x1", "--leaf", "999"][..], "--leaf: `999` is no SEAMCALL leaf"),
        (&["0xc0000b08"][..], "0xc0000b0800000000"),
    ] {
        let (code, out, err) = run(args, false, b"");
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains(needed), "{err}");
    }
}

#[test]
fn a_log_without_tdx_lines_says_so() {
    let (code, out, err) = run(&[], false, b"usb 1-1: new device\nvirt/tdx: module not loaded\n");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("2 lines of standard input"), "{err}");
}

#[test]
fn an_endless_line_is_taken_in_pieces() {
    let mut input = vec![b'x'; 300_000];
    input.extend_from_slice(b"\nSEAMCALL TDH_MEM_TRACK failed: 0x80000200000000a9\n");
    let (code, out, _) = run(&[], false, &input);
    assert_eq!(code, 0);
    assert!(out.contains("TDX_OPERAND_BUSY (0x80000200000000a9, operand TD_EPOCH)"));
}

proptest! {
    #[test]
    fn any_input_is_answered(input in prop::collection::vec(any::<u8>(), 0..400), json: bool) {
        let (code, out, _) = run(&[], json, &input);
        prop_assert!(code == 0 || (code == 2 && out.is_empty()));
    }

    #[test]
    fn any_status_at_any_leaf_is_explained(word: u64, leaf in 0u16..200, rcx: u64, rdx: u64, json: bool) {
        let line = format!("SEAMCALL ({leaf:#018x}) failed: {word:#x}, rcx {rcx:#x}, rdx {rdx:#x}");
        let (code, out, err) = run(&[], json, line.as_bytes());
        prop_assert_eq!(code, 0, "{}", err);
        let hex = format!("{word:016x}");
        prop_assert!(out.contains(&hex));
    }
}
