//! `log`: a line on standard error, and an entry of the journal where there is one.

use std::{fmt::Write as _, io::Write as _};

use super::{ReactError, host::Host, journal};
use crate::{
    model::verdict::Verdict,
    policy::{decision::Decision, subject::Subject},
};

/// Writes a violation to the logs.
///
/// # Errors
/// One of them does not take it.
pub fn log(
    host: &Host,
    policy: &str,
    decision: &Decision,
    verdict: &Verdict,
    subject: &Subject,
) -> Result<String, ReactError> {
    let fields = fields(policy, decision, verdict, subject);
    let mut line = "septwatch:".to_owned();
    for (name, value) in &fields {
        // It cannot fail: it is a String.
        let _ = write!(line, " {name}={}", quoted(value));
    }
    let printed = writeln!(std::io::stderr().lock(), "{line}");
    printed.map_err(|source| ReactError::File { path: "standard error".to_owned(), source })?;
    if !host.journal.exists() {
        return Ok("on standard error".to_owned());
    }
    let entry = journal::entry(line.trim_start_matches("septwatch: "), verdict, fields);
    let sent = journal::send(&host.journal, &entry);
    sent.map_err(super::file(&host.journal))?;
    Ok("on standard error and in the journal".to_owned())
}

fn fields(
    policy: &str,
    decision: &Decision,
    verdict: &Verdict,
    subject: &Subject,
) -> Vec<(&'static str, String)> {
    let of_subject = [
        ("td_name", subject.name.clone()),
        ("td_uuid", subject.uuid.clone()),
        ("pid", subject.tgid.map(|tgid| tgid.to_string())),
        ("policy", Some(policy.to_owned())),
        ("rule", Some(decision.rule.clone())),
    ];
    let of_subject = of_subject.into_iter().filter_map(|(name, value)| Some((name, value?)));
    journal::violation(verdict).into_iter().chain(of_subject).collect()
}

/// A value on one line, and in quotation marks where a blank or another such would end it.
fn quoted(value: &str) -> String {
    let plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '"' | '=' | '\\');
    if !value.is_empty() && value.chars().all(plain) { value.to_owned() } else { format!("{value:?}") }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::{
        super::super::actor::tests::{decision, subject, verdict},
        *,
    };
    use crate::policy::reaction::Reaction;

    #[test]
    fn an_entry_has_the_journals_fields() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Host::under(root.path());
        let (verdict, decision) = (verdict(), decision(Reaction::Log));
        let subject = Subject { name: Some("two\nlines".to_owned()), ..subject(4711) };
        let log = |host: &Host| log(host, "contain", &decision, &verdict, &subject);
        assert_eq!(log(&host).unwrap(), "on standard error");
        host.journal = root.path().join("socket");
        let journal = UnixDatagram::bind(&host.journal).unwrap();
        assert_eq!(log(&host).unwrap(), "on standard error and in the journal");
        let mut entry = [0; 4096];
        let length = journal.recv(&mut entry).unwrap();
        let entry = String::from_utf8_lossy(&entry[..length]).into_owned();
        for line in
            ["PRIORITY=2\n", "SEPTWATCH_VIOLATION=zap-failed\n", "SEPTWATCH_TD=3\n", "SEPTWATCH_PFN=0x1234\n"]
        {
            assert!(entry.contains(line), "{entry:?}");
        }
        assert!(entry.contains("SEPTWATCH_TD_NAME\n\t\0\0\0\0\0\0\0two\nlines\n"), "{entry:?}");
        assert!(
            entry.starts_with("MESSAGE=violation=zap-failed confidence=certain td=3 tdr_pfn=")
                && entry.contains(" td_name=\"two\\nlines\""),
            "{entry:?}"
        );
        drop(journal);
        assert!(log(&host).is_err(), "nobody reads");
    }
}
