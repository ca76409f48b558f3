//! Violations in the journal, each field by itself: `journalctl -t septwatch SEPTWATCH_VIOLATION=freed-while-mapped`.

use std::{io, path::PathBuf};

use super::{message::Message, outlet::Peer};
use crate::policy::react::journal;

/// The journal.
#[derive(Debug)]
pub struct Journal {
    socket: PathBuf,
}

impl Journal {
    /// The journal that reads this socket; usually [`SOCKET`].
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }
}

/// Where systemd-journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

impl Peer for Journal {
    fn deliver(&mut self, message: &Message, lost: u64) -> io::Result<()> {
        // What is no violation is no business of the journal's, and counts as passed on.
        let Some(verdict) = &message.verdict else { return Ok(()) };
        let mut fields = journal::violation(verdict);
        if lost != 0 {
            fields.push(("lost_before", lost.to_string()));
        }
        let words: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        journal::send(&self.socket, &journal::entry(&words.join(" "), verdict, fields))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::collector::message::tests::message;

    #[test]
    fn each_field_stands_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let mut journal = Journal::at(socket.clone());
        assert!(journal.deliver(&message(1), 0).is_err(), "nobody listens");
        let listener = UnixDatagram::bind(socket).unwrap();
        journal.deliver(&message(1), 3).unwrap();
        let mut entry = [0; 4096];
        let length = listener.recv(&mut entry).unwrap();
        let entry = String::from_utf8_lossy(&entry[..length]).into_owned();
        for line in [
            "PRIORITY=2",
            "SEPTWATCH_VIOLATION=zap-failed",
            "SEPTWATCH_PFN=0x1234",
            "SEPTWATCH_LOST_BEFORE=3",
        ] {
            assert!(entry.lines().any(|have| have == line), "{line}: {entry}");
        }
    }
}
