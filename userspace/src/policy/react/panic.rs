//! `panic` from userspace: the reason into the kernel's log, which consoles and pstore have, then sysrq.
//!
//! It takes its time, and others run meanwhile: where the programs in the kernel can start the crash kernel, they have done
//! it before anybody comes here.

use std::{fs::OpenOptions, io::Write as _};

use super::{ReactError, file, host::Host};

/// KERN_EMERG
const EMERGENCY: u8 = 0;
/// KERN_ALERT
const ALERT: u8 = 1;
/// Longest record that is written to the kernel's log, in bytes: it refuses those above about 1 KiB.
const LONGEST: usize = 900;

/// Writes the reason to the kernel's log and brings the host down.
///
/// # Errors
/// It is still up.
pub fn panic(host: &Host, why: &str) -> Result<(), ReactError> {
    let told = kmsg(host, EMERGENCY, &format!("{why}: sysrq"));
    // kernel.sysrq does not count here: it is for the keyboard. Only who may write the file counts.
    let trigger = host.proc.join("sysrq-trigger");
    let written = OpenOptions::new().write(true).open(&trigger).and_then(|mut opened| opened.write_all(b"c"));
    written.map_err(file(&trigger))?;
    let log = told.err().map(|error| format!("; and the kernel's log: {error}")).unwrap_or_default();
    Err(ReactError::NotSeen(format!("{} has taken it, and the host is still up{log}", trigger.display())))
}

/// Writes to the kernel's log, and so to consoles and into the dump, that the programs in the kernel may bring the host
/// down: crash_kexec says nothing, and runs nothing that could.
///
/// # Errors
/// It cannot be written.
pub fn announce(host: &Host, policy: &str) -> Result<(), ReactError> {
    kmsg(
        host,
        ALERT,
        &format!(
            "septwatch: armed: policy {policy} may start the crash kernel at any moment from now on; why, is in the dump after the bytes septwatch-panic"
        ),
    )
}

/// Writes a record to the kernel's log.
///
/// # Errors
/// It cannot be written.
pub(super) fn kmsg(host: &Host, level: u8, text: &str) -> Result<(), ReactError> {
    let path = host.dev.join("kmsg");
    let mut record = format!("<{level}>");
    for letter in text.chars().map(|letter| if letter.is_control() { '?' } else { letter }) {
        if record.len() + letter.len_utf8() > LONGEST {
            break;
        }
        record.push(letter);
    }
    record.push('\n');
    let opened = OpenOptions::new().write(true).open(&path);
    // One call is one record.
    opened.and_then(|mut opened| opened.write_all(record.as_bytes())).map_err(file(&path))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::fs;

    use super::{super::vmm::tests::tree, *};

    #[test]
    fn the_reason_comes_first_and_a_host_that_is_up_is_a_failure() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::under(root.path());
        tree(root.path(), &[("dev/kmsg", "")]);
        let error = panic(&host, "septwatch: why\nnot").unwrap_err();
        assert!(error.to_string().contains("proc/sysrq-trigger"), "{error}");
        assert_eq!(
            fs::read_to_string(root.path().join("dev/kmsg")).unwrap(),
            "<0>septwatch: why?not: sysrq\n"
        );
        tree(root.path(), &[("proc/sysrq-trigger", "")]);
        let error = panic(&host, &"\u{e9}".repeat(2000)).unwrap_err().to_string();
        assert!(error.ends_with("has taken it, and the host is still up"), "{error}");
        assert_eq!(fs::read_to_string(root.path().join("proc/sysrq-trigger")).unwrap(), "c");
        assert!(fs::metadata(root.path().join("dev/kmsg")).unwrap().len() <= 901);
        fs::remove_file(root.path().join("dev/kmsg")).unwrap();
        let error = panic(&host, "why").unwrap_err().to_string();
        assert!(error.contains("still up; and the kernel's log: "), "{error}");
    }
}
