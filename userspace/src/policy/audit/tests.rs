use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

fn started() -> Line {
    Line::Event(Event::new(EventKind::Started, Some("contain"), Who { uid: 0, pid: 1 }, "armed"))
}

/// The file of today, by whatever name.
fn file(folder: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files[0].clone()
}

#[test]
fn a_line_that_a_crash_tore_does_not_spoil_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("audit");
    Audit::open(&folder).unwrap().write(&started(), true).unwrap();
    let path = file(&folder);
    let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
    torn.write_all(b"{\"type\":\"deci").unwrap();
    Audit::open(&folder).unwrap().write(&started(), true).unwrap();
    let lines = read::read(&path).unwrap();
    let good: Vec<_> = lines.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true]);
}

#[test]
fn what_others_can_write_is_no_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Audit::open(&path).unwrap_err().to_string();
    assert!(refused.contains("0700"), "{refused}");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    assert!(matches!(Audit::open(&link), Err(AuditError::Unsafe { .. })));
}
