//! The journal's own protocol: a datagram of fields, a line each. <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::{io, os::unix::net::UnixDatagram, path::Path};

use crate::model::verdict::Verdict;

/// Priorities of syslog(3).
const CRITICAL: u8 = 2;
const WARNING: u8 = 4;

/// What the journal, and a line of the log, have of a violation: names in lower case.
pub(crate) fn violation(verdict: &Verdict) -> Vec<(&'static str, String)> {
    let hex = |number: u64| format!("{number:#x}");
    let failed = verdict.failed;
    let fields = [
        ("violation", Some(verdict.violation.name().to_owned())),
        ("confidence", Some(verdict.confidence().to_owned())),
        ("td", verdict.td.map(|td| td.to_string())),
        ("tdr_pfn", verdict.tdr.map(hex)),
        ("pfn", verdict.pfn.map(hex)),
        ("gfn", verdict.gfn.map(hex)),
        ("frames", Some(verdict.frames.to_string())),
        ("failed_leaf", failed.and_then(|failed| failed.leaf).map(|leaf| leaf.name().to_owned())),
        ("failed_status", failed.map(|failed| hex(failed.status.0))),
        ("time_ns", Some(verdict.time_ns.to_string())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The entry of a violation: a line for people, and each field by itself, as `SEPTWATCH_TD`.
pub(crate) fn entry(
    message: &str,
    verdict: &Verdict,
    fields: Vec<(&'static str, String)>,
) -> Vec<(String, String)> {
    let priority = if verdict.suspect.is_certain() { CRITICAL } else { WARNING };
    let mut entry = vec![
        ("MESSAGE".to_owned(), message.to_owned()),
        ("PRIORITY".to_owned(), priority.to_string()),
        ("SYSLOG_IDENTIFIER".to_owned(), "septwatch".to_owned()),
    ];
    let fields = fields.into_iter();
    entry.extend(fields.map(|(name, value)| (format!("SEPTWATCH_{}", name.to_uppercase()), value)));
    entry
}

/// Sends an entry. Values with line breaks in them are sent as the protocol has it: their length before them.
///
/// # Errors
/// The journal does not take it.
pub(crate) fn send(socket: &Path, fields: &[(String, String)]) -> io::Result<()> {
    let mut entry = Vec::new();
    for (name, value) in fields {
        entry.extend(name.as_bytes());
        if value.contains('\n') {
            entry.push(b'\n');
            entry.extend((value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend(value.as_bytes());
        entry.push(b'\n');
    }
    let datagram = UnixDatagram::unbound()?;
    // A journal that does not read must not hold up what follows.
    datagram.set_nonblocking(true)?;
    datagram.send_to(&entry, socket).map(|_| ())
}
