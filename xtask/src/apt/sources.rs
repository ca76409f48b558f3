//! What apt's tools print and what its sources files hold, read into values.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::run;

/// A repository of the machine's configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) uri: String,
    /// The value of `Signed-By` as configured: key files, fingerprints or a key. None: apt's trusted keys.
    pub(super) signed_by: Option<String>,
}

/// A repository as `apt-get indextargets` names it: its address, and where it is configured.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    uri: &'a str,
    file: &'a Path,
    entry: usize,
}

/// The repositories with a component `main`, in apt's order, security archives left out: those hold no whole suite.
///
/// # Errors
/// There is no apt, or it knows no repository, or a sources file cannot be read.
pub(super) fn configured() -> Result<Vec<Mirror>> {
    // --no-release-info: also the repositories whose lists were never fetched, or were removed to save space.
    let format = "$(COMPONENT)|$(RELEASE)|$(REPO_URI)|$(SOURCESENTRY)";
    let text =
        run::quiet(Command::new("apt-get").args(["indextargets", "--no-release-info", "--format", format]))?;
    let mut mirrors = Vec::new();
    for target in targets(&text) {
        let file = fs::read_to_string(target.file)
            .with_context(|| format!("cannot read apt's {}", target.file.display()))?;
        let signed_by = if target.file.extension().is_some_and(|extension| extension == "sources") {
            stanza_field(&file, target.entry, "Signed-By")
        } else {
            line_option(&file, target.entry, "signed-by")
        };
        mirrors.push(Mirror { uri: target.uri.to_owned(), signed_by });
    }
    ensure!(!mirrors.is_empty(), "apt has no repository with a component `main` configured");
    Ok(mirrors)
}

fn targets(text: &str) -> Vec<Target<'_>> {
    let mut found: Vec<Target<'_>> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('|');
        let (Some("main"), Some(release), Some(uri), Some(entry)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Some((file, entry)) = entry.rsplit_once(':') else { continue };
        let Ok(entry) = entry.parse() else { continue };
        let security = release.ends_with("-security") || release.ends_with("/updates");
        if !security && found.iter().all(|target| target.uri != uri) {
            found.push(Target { uri, file: Path::new(file), entry });
        }
    }
    found
}

/// A field of the `entry`-th stanza (from 1) of a deb822 file, its continuation lines included.
fn stanza_field(text: &str, entry: usize, name: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut stanzas = lines.split(|line| line.trim().is_empty()).filter(|stanza| !stanza.is_empty());
    let mut lines = stanzas.nth(entry.checked_sub(1)?)?.iter();
    let first = lines.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })?;
    let mut value = first.to_owned();
    for line in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        value.push('\n');
        value += line;
    }
    Some(value)
}

/// An option in the square brackets of line `entry` (from 1) of a one-line-style file.
fn line_option(text: &str, entry: usize, name: &str) -> Option<String> {
    let line = text.lines().nth(entry.checked_sub(1)?)?;
    let (_, rest) = line.split_once('[')?;
    let (options, _) = rest.split_once(']')?;
    let mut pairs = options.split_whitespace().filter_map(|option| option.split_once('='));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

/// The versions in what `apt-cache madison` prints (`package | version | origin`), doubles left out.
pub(super) fn madison(text: &str) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for version in text.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim) {
        if versions.iter().all(|known| known != version) {
            versions.push(version.to_owned());
        }
    }
    versions
}

/// The file names in what `apt-get --print-uris` prints (`'address' name size checksum`).
pub(super) fn file_names(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with('\'')).filter_map(|line| line.split(' ').nth(1)).collect()
}

/// `name=version` of each package that `apt-get --simulate install` would install: `Inst name (version origin [arch])`,
/// with the version that there is in front where it would be another.
pub(super) fn to_install(text: &str) -> Vec<String> {
    let package = |line: &str| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
        Some(format!("{name}={}", rest.split_once('(')?.1.split(' ').next()?))
    };
    text.lines().filter_map(package).collect()
}

/// What is wrong, of all that a failing `apt-get` prints: its first error line, else all of it.
pub(super) fn complaint(text: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix("E: ")).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
main|bookworm|http://mirror.example/debian/|/etc/apt/sources.list.d/debian.sources:1
main|bookworm|http://mirror.example/debian/|/etc/apt/sources.list.d/debian.sources:1
main|bookworm-security|http://mirror.example/debian-security/|/etc/apt/sources.list.d/debian.sources:2
contrib|bookworm|http://other.example/debian/|/etc/apt/sources.list:3
main|stable|mirror+file:/etc/apt/mirrors/debian.list|/etc/apt/sources.list:4
not a target
main|sid|http://mirror.example/x/|no entry number
";

    #[test]
    fn each_mirror_is_taken_once_and_no_security_archive() {
        let mirror = Target {
            uri: "http://mirror.example/debian/",
            file: Path::new("/etc/apt/sources.list.d/debian.sources"),
            entry: 1,
        };
        let list = Target {
            uri: "mirror+file:/etc/apt/mirrors/debian.list",
            file: Path::new("/etc/apt/sources.list"),
            entry: 4,
        };
        assert_eq!(targets(TARGETS), [mirror, list]);
        assert!(targets("").is_empty());
    }

    const STANZAS: &str = "\
# the mirror
Types: deb
# a remark: inside
URIs: http://mirror.example/debian
Signed-By: /usr/share/keyrings/a.gpg


Types: deb
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
Suites: x
\t
Types: deb
";

    #[test]
    fn the_key_is_that_of_the_entry() {
        let field = |entry| stanza_field(STANZAS, entry, "Signed-By");
        assert_eq!(field(1).as_deref(), Some("/usr/share/keyrings/a.gpg"));
        assert_eq!(field(2).as_deref(), Some("\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc"));
        for entry in [0, 3, 4, usize::MAX] {
            assert_eq!(field(entry), None);
        }
    }

    #[test]
    fn the_option_is_that_of_the_line() {
        let list = "# deb [signed-by=/no] x\n\ndeb [arch=amd64 Signed-By=/a.gpg,/b.gpg] http://x sid main\ndeb http://x sid main\ndeb [broken\n";
        let option = |entry| line_option(list, entry, "signed-by");
        assert_eq!(option(3).as_deref(), Some("/a.gpg,/b.gpg"));
        for entry in [0, 2, 4, 5, 6] {
            assert_eq!(option(entry), None);
        }
    }

    #[test]
    fn versions_and_file_names_are_read() {
        let text = "  rust-src | 1.95.0+dfsg1-1~bpo13+1 | http://x trixie-backports/main amd64 Packages\n  rust-src | 1.95.0+dfsg1-1~bpo13+1 | http://x Sources\n rust-src | 1.88.0-1 | http://x\n";
        assert_eq!(madison(text), ["1.95.0+dfsg1-1~bpo13+1", "1.88.0-1"]);
        assert!(madison("").is_empty());
        let simulated = "Reading package lists...\nInst libc6 [2.41-1] (2.43-7 Debian:unstable [amd64]) []\nInst qemu (1:11.1+ds-1 Debian:unstable [amd64])\nConf libc6 (2.43-7 Debian:unstable [amd64])\n";
        assert_eq!(to_install(simulated), ["libc6=2.43-7", "qemu=1:11.1+ds-1"]);
        let refused = "`apt-get update`: exit status: 100\nErr:1 x\nE: no Release file\nE: more";
        assert_eq!(complaint(refused), "no Release file");
        assert_eq!(complaint("cannot run `apt-get`"), "cannot run `apt-get`");
        let uris = "Reading package lists...\n'http://x/a%3a1.dsc' a.dsc 12 SHA256:00\n'http://x/a.tar.xz' a.tar.xz 13 SHA256:01\n";
        assert_eq!(file_names(uris), ["a.dsc", "a.tar.xz"]);
    }
}
