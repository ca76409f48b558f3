//! Every view of a recording: nothing here needs privileges.

use std::{fs, os::unix::fs::PermissionsExt as _};

use base64::Engine as _;
use septwatch_pty::Mouse;

use crate::{
    binary,
    screen::{SOON, Top},
};

const WIDE: (u16, u16) = (160, 50);

/// Views in the order of their keys, and what each shows of the recording.
const VIEWS: [(&str, &[&str]); 6] = [
    ("1", &["7 violations", "Lent memory", "teardown-leak", "7.3.4"]),
    ("2", &["lab-vmm", "bugged", "gone", "HKID"]),
    ("3", &["freed-while-blocked", "zap-failed", "map-failed", "teardown-leak", "vm-bugged", "0x674c"]),
    ("4", &["TDH.MEM.PAGE.REMOVE", "CALLS/s", "TDX_TD_ASSOCIATED_PAGES_EXIST"]),
    ("5", &["tdh_mem_page_remove", "fexit", "freed-while-mapped"]),
    ("6", &["TD 1 created", "zap-failed [certain]", "TD 2"]),
];

#[test]
fn every_view_has_a_key_and_tab_goes_through_them() {
    binary!();
    let mut top = Top::golden(WIDE);
    for (key, shows) in VIEWS {
        top.press(key);
        for words in shows {
            top.sees(words);
        }
    }
    for (_, shows) in VIEWS {
        top.press("tab");
        for words in shows {
            top.sees(words);
        }
    }
    top.press("shift-tab").sees("SEAMCALL").sees("LOST");
    top.press("q").ends(1);
}

#[test]
fn a_td_opens() {
    binary!();
    let mut top = Top::golden(WIDE);
    top.press("2").sees("HKID").press("enter");
    top.sees("Guest frames").sees("TDH.MEM.PAGE.REMOVE").sees("lab-vmm").misses("STATE");
    top.press("esc").sees("STATE").misses("Guest frames");
    top.press("q").ends(1);
}

#[test]
fn a_violation_opens_with_the_life_of_its_frame_and_its_stacks() {
    binary!();
    let mut top = Top::golden(WIDE);
    top.press("3 f").terminal.type_text("freed-while-blocked").unwrap();
    top.press("enter").sees("Violation 3 ").press("enter").misses("CONFIDENCE");
    for words in [
        "freed-while-blocked",
        "TDX_OPERAND_BUSY",
        "TDH.MEM.PAGE.REMOVE",
        "TDH.MEM.PAGE.AUG",
        "kvm_gmem_",
        "certain",
        "0x674c",
    ] {
        top.sees(words);
    }
    // From it to its TD.
    top.press("enter").sees("Guest frames");
    top.press("q").ends(1);
}

#[test]
fn a_filter_leaves_what_fits_and_a_wrong_one_loses_nothing() {
    binary!();
    let mut top = Top::golden(WIDE);
    top.press("3 /").terminal.type_text("violation=zap-failed").unwrap();
    top.press("enter").misses("map-failed").sees("zap-failed").sees("0x674c");
    let left = top.still();
    let number = |line: &str| line.chars().take(8).collect::<String>().trim().parse::<u64>();
    assert_eq!(left.lines().filter_map(|line| number(line).ok()).collect::<Vec<_>>(), [1], "{left}");
    top.press("esc").sees("map-failed");
    // What cannot be understood is said while it is typed, and nothing is left out because of it.
    top.press("/").terminal.type_text("colour=red").unwrap();
    top.press("enter").sees("colour").sees("map-failed").sees("teardown-leak");
    top.press("esc").misses("colour=red").sees("map-failed");
    // A filter of one view is none of another.
    top.press("2 /").terminal.type_text("state=gone").unwrap();
    top.press("enter").misses("bugged").sees("gone").press("3").sees("map-failed");
    top.press("q").ends(1);
}

#[test]
fn tables_are_sorted_and_searched() {
    binary!();
    let mut top = Top::golden(WIDE);
    top.press("4").sees("CALLS");
    let order = |top: &mut Top| -> Vec<String> {
        let text = top.still();
        let leaf = |line: &str| line.split_whitespace().next().map(str::to_owned);
        text.lines().filter(|line| line.starts_with(" TDH.")).filter_map(leaf).collect()
    };
    let first = order(&mut top);
    top.press("r");
    let reversed = order(&mut top);
    assert!(first.len() > 5, "{first:?}");
    assert_ne!(first, reversed);
    top.press("s").sees("by ");
    top.press("f").terminal.type_text("wbinvd").unwrap();
    top.press("enter").sees("TDH.PHYMEM.PAGE.WBINVD ─");
    top.press("f").terminal.type_text("no such leaf").unwrap();
    top.press("enter").sees("no row has");
    top.press("q").ends(1);
}

#[test]
fn the_help_has_every_key() {
    binary!();
    let mut top = Top::golden(WIDE);
    top.press("?");
    for words in ["next view", "pgdn", "ctrl-z", "copy the violation's report", "to the violation"] {
        top.sees(words);
    }
    top.press("?").misses("next view");
    top.press("q").ends(1);
}

#[test]
fn a_recording_is_gone_through_in_time() {
    binary!();
    let mut top = Top::golden(WIDE);
    top.press("{").misses("7 violations").sees("all clear");
    top.press("]").sees("1 violation");
    top.press("]").sees("2 violations");
    top.press("[").sees("353.5 ms back").press("[").sees("404.1 ms back").sees("1 violation:");
    top.press("t").terminal.type_text("-250ms").unwrap();
    top.press("enter").sees("3 violations").sees("250.0 ms back");
    // Half as fast as it happened, from the begin: it arrives at the end by itself.
    top.press("{").sees("all clear").press("space").sees("▶").sees("7 violations");
    top.press("{").sees("all clear").press("}").sees("7 violations");
    top.press("q").ends(1);
}

#[test]
fn a_mouse_chooses_tabs_and_rows() {
    binary!();
    let mut top = Top::golden(WIDE);
    let (column, row) = top.terminal.find("Violations (7)").unwrap();
    top.terminal.mouse(Mouse::Click, column + 1, row).unwrap();
    top.sees("CONFIDENCE");
    let (column, row) = top.terminal.find("map-failed").unwrap();
    top.terminal.mouse(Mouse::Click, column, row).unwrap();
    let chosen = |top: &Top, row: u16| top.terminal.screen().cell(row, column).unwrap().inverse();
    top.terminal
        .until("for a row to be chosen", SOON, |output| {
            (!output.frames().open && output.screen().cell(row, column)?.inverse()).then_some(())
        })
        .unwrap();
    top.terminal.mouse(Mouse::WheelDown, column, row).unwrap();
    top.still();
    assert!(!chosen(&top, row));
    top.press("q").ends(1);
}

#[test]
fn a_report_is_copied_and_saved() {
    binary!();
    let mut top = Top::golden(WIDE);
    top.press("3").sees("CONFIDENCE").press("y").sees("copied, if");
    let copied = top.terminal.output().clipboard().unwrap().to_vec();
    let copied = base64::engine::general_purpose::STANDARD.decode(copied).unwrap();
    let copied = String::from_utf8(copied).unwrap();
    assert!(copied.contains("teardown-leak") && copied.contains("tdx_vm_destroy"), "{copied}");
    top.press("w").sees("saved");
    let files: Vec<_> = fs::read_dir(top.folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!(fs::read_to_string(file).unwrap(), copied);
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    // Not over the one that is there.
    top.press("w").sees("-2.txt");
    assert_eq!(fs::read_dir(top.folder.path()).unwrap().count(), 2);
    top.press("q").ends(1);
}

#[test]
fn the_layout_is_kept() {
    binary!();
    let mut top = Top::golden(WIDE);
    top.press("3 s W").sees("saved: ");
    let saved = fs::read_to_string(top.config()).unwrap();
    assert!(saved.contains("violations"), "{saved}");
    top.press("q").ends(1);
    // Another key for leaving, and the view that was open.
    fs::write(top.config(), saved + "\n[keys]\nquit = [\"x\"]\n").unwrap();
    let mut command = crate::screen::command(top.folder.path(), &[crate::screen::GOLDEN]);
    command.env("XDG_CONFIG_HOME", top.folder.path().join("config"));
    top.terminal = septwatch_pty::Terminal::start(command, 120, 40).unwrap();
    top.sees("CONFIDENCE").press("q").press("x").ends(1);
    fs::write(top.config(), "[keys]\nquit = [\"no-such-key\"]\n").unwrap();
    let command = crate::screen::command(top.folder.path(), &[crate::screen::GOLDEN]);
    top.terminal = septwatch_pty::Terminal::start(command, 120, 40).unwrap();
    assert_eq!(top.terminal.wait().unwrap().code(), Some(2));
    top.sees("no-such-key").sees("top.toml");
}
