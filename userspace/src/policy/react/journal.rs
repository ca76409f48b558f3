//! The journal's own protocol: a datagram of fields, a line each. <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::{io, os::unix::net::UnixDatagram, path::Path};

/// Sends an entry. Values with line breaks in them are sent as the protocol has it: their length before them.
///
/// # Errors
/// The journal does not take it.
pub(super) fn send(socket: &Path, fields: &[(&str, String)]) -> io::Result<()> {
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
