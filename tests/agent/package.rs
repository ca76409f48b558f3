//! The Debian package: what it brings, how it is installed and removed, and that it works from where it lies.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::process::Signal;
use septwatch_tests::{septwatch, skip, support::process::Run};
use tempfile::TempDir;

use super::{
    prometheus::Watching,
    servers::{over_usr, program, until},
    web,
};

/// What is installed, with type, mode and owner of each: what is lost or new must be seen.
const FILES: &str = include_str!("package.files");

/// A folder that the package is installed into, by a dpkg with a database of its own there.
pub struct Root(TempDir);

impl Root {
    /// Installs.
    ///
    /// # Errors
    /// Why it cannot be done here.
    pub fn installed() -> Result<Self, String> {
        let package = package()?;
        if !rustix::process::geteuid().is_root() {
            return Err("installs files of root's: run as root".to_owned());
        }
        let root = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(root.at("var/lib/dpkg/info")).unwrap();
        fs::create_dir_all(root.at("var/lib/dpkg/updates")).unwrap();
        fs::write(root.at("var/lib/dpkg/status"), "").unwrap();
        // It is a root without libc: what the package depends on is looked at elsewhere.
        root.dpkg(&["--force-depends".as_ref(), "--install".as_ref(), package.as_os_str()]);
        Ok(root)
    }

    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// The same as text.
    pub fn text_of(&self, path: &str) -> String {
        self.at(path).to_str().unwrap().to_owned()
    }

    /// Runs dpkg on it, and returns what that says. Its scripts see no systemd: that of this host has nothing to do with it.
    fn dpkg(&self, arguments: &[&OsStr]) -> String {
        let script = "test ! -d /run/systemd || mount -t tmpfs none /run/systemd; exec \"$@\"";
        let mut dpkg = Command::new("unshare");
        dpkg.args(["--mount", "sh", "-c", script, "sh", "dpkg", "--force-script-chrootless"]);
        dpkg.arg(format!("--root={}", self.0.path().display())).args(arguments).env("LC_ALL", "C");
        said(&mut dpkg)
    }

    /// Everything in it but dpkg's own, one line each.
    fn list(&self) -> String {
        let mut lines = String::new();
        self.list_below(Path::new(""), &mut lines);
        lines
    }

    fn list_below(&self, folder: &Path, lines: &mut String) {
        let entries = fs::read_dir(self.0.path().join(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = folder.join(name);
            if path == Path::new("var/lib/dpkg") {
                continue;
            }
            let metadata = fs::symlink_metadata(self.0.path().join(&path)).unwrap();
            let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
            writeln!(lines, "{mode:06o} {uid}:{gid} /{}", path.display()).unwrap();
            if metadata.is_dir() {
                self.list_below(&path, lines);
            }
        }
    }
}

/// The package that `cargo xtask test` made.
fn package() -> Result<PathBuf, String> {
    let path = std::env::var_os("SEPTWATCH_DEB");
    path.map(PathBuf::from).ok_or_else(|| "no package: `cargo xtask test 2` makes one".to_owned())
}

/// What a command that must succeed says.
fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(status.success(), "{command:?}: {status}: {said}");
    said
}

/// Begins the test with an installed package; ends it as skipped where that cannot be.
macro_rules! installed {
    () => {
        match Root::installed() {
            Ok(root) => root,
            Err(why) => skip!("{why}"),
        }
    };
}

#[test]
fn these_files_are_installed_and_purged_but_a_configuration_outlives_removal() {
    let root = installed!();
    let listed = root.list();
    let lines = |text: &'static str| text.lines();
    let missing: Vec<_> = lines(FILES).filter(|line| !listed.lines().any(|have| have == *line)).collect();
    let new: Vec<_> = listed.lines().filter(|line| !lines(FILES).any(|known| known == *line)).collect();
    assert!(missing.is_empty() && new.is_empty(), "missing: {missing:#?}\nnot in package.files: {new:#?}");
    for line in listed.lines() {
        let (mode, rest) = line.split_once(' ').unwrap();
        assert_eq!(u32::from_str_radix(mode, 8).unwrap() & 0o7022, 0, "{line}");
        assert!(rest.starts_with("0:0 "), "{line}");
    }
    let query = |field: &str| {
        let mut query = Command::new("dpkg-query");
        query.arg(format!("--admindir={}", root.text_of("var/lib/dpkg")));
        said(query.args(["--show", &format!("--showformat=${{{field}}}"), "septwatch"]))
    };
    assert_eq!(query("Status"), "install ok installed");
    let conffiles = query("Conffiles");
    let [conffile] = conffiles.trim().lines().collect::<Vec<_>>()[..] else { panic!("{conffiles}") };
    assert!(conffile.starts_with("/etc/septwatch/agent.toml "), "{conffile}");
    // Neither enabled nor started; a running one is started again by an upgrade.
    let script = fs::read_to_string(root.at("var/lib/dpkg/info/septwatch.postinst")).unwrap();
    assert!(script.contains("deb-systemd-invoke try-restart septwatch-agent.service "), "{script}");
    assert!(!script.contains("deb-systemd-invoke start"), "{script}");
    let depends = query("Depends");
    assert!(depends.contains("libc6 (>= "), "{depends}");
    let changelog = said(Command::new("zcat").arg(root.at("usr/share/doc/septwatch/changelog.gz")));
    let version = format!("septwatch ({}) ", query("Version"));
    assert!(changelog.starts_with(&version), "{version}: {changelog}");

    // An audit log, which can only be appended to where the file system knows that.
    fs::create_dir_all(root.at("var/log/septwatch")).unwrap();
    let audit = root.at("var/log/septwatch/audit.jsonl");
    fs::write(&audit, "{}\n").unwrap();
    let _ = Command::new("chattr").arg("+a").arg(&audit).output();
    root.dpkg(&["--remove".as_ref(), "septwatch".as_ref()]);
    assert!(root.at("etc/septwatch/agent.toml").is_file() && audit.is_file());
    assert!(!root.at("usr/bin/septwatch").exists() && !root.at("usr/share/septwatch").exists());
    root.dpkg(&["--purge".as_ref(), "septwatch".as_ref()]);
    let left = root.list();
    assert!(!left.contains("septwatch"), "{left}");
}

#[test]
fn it_is_as_debian_wants_it() {
    let package = match package().and_then(|package| program("lintian").map(|_| package)) {
        Ok(package) => package,
        Err(why) => skip!("{why}"),
    };
    let mut lintian = over_usr("lintian");
    // root: lintian would rather not be.
    lintian.args([
        "--allow-root",
        "--fail-on",
        "error,warning",
        "--tag-display-limit",
        "0",
        "--show-overrides",
    ]);
    println!("{}", said(lintian.arg(package).env("LC_ALL", "C.UTF-8")));
}

#[test]
fn systemd_takes_its_units() {
    let root = installed!();
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        skip!("no systemd-analyze; the Debian package systemd has it");
    }
    // Where they would be: they name programs and man pages.
    let script = "mount -t overlay -o lowerdir=\"$0\":/usr overlay /usr && exec \"$@\"";
    let units = ["service", "socket"].map(|kind| format!("/usr/lib/systemd/system/septwatch-agent.{kind}"));
    let mut verify = Command::new("unshare");
    verify.args(["--mount", "sh", "-c", script]).arg(root.at("usr"));
    let told = said(verify.args(["systemd-analyze", "verify", "--recursive-errors=no"]).args(&units));
    // Of others' units it may say what it likes.
    assert!(!told.contains("septwatch"), "{told}");
    // In tenths, as README.md says.
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold=28"]);
    said(security.arg(root.at("usr/lib/systemd/system/septwatch-agent.service")));
}

#[test]
fn man_and_shells_read_what_is_there_for_them() {
    let root = installed!();
    for checker in ["mandoc", "zsh", "fish"] {
        if let Err(why) = program(checker) {
            skip!("{why}");
        }
    }
    let mut pages: Vec<_> =
        fs::read_dir(root.at("usr/share/man/man1")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert!(pages.iter().any(|page| page.ends_with("septwatch-agent.1.gz")), "{pages:?}");
    for page in pages {
        // How paragraphs are set is warned of, and up to clap. lintian asks man itself.
        said(over_usr("mandoc").args(["-T", "lint", "-W", "error"]).arg(page));
    }
    let shells = [
        (vec!["bash", "-n"], "usr/share/bash-completion/completions/septwatch"),
        (vec!["zsh", "-n"], "usr/share/zsh/vendor-completions/_septwatch"),
        (vec!["fish", "--no-execute"], "usr/share/fish/vendor_completions.d/septwatch.fish"),
    ];
    for (shell, script) in shells {
        let mut reads = over_usr(shell[0]);
        let told = said(reads.args(&shell[1..]).arg(root.at(script)));
        assert_eq!(told, "", "{shell:?}");
    }
}

#[test]
fn its_configuration_and_its_policies_are_good() {
    let root = installed!();
    let septwatch = |arguments: &[&str]| said(Command::new(root.at("usr/bin/septwatch")).args(arguments));
    let config = root.text_of("etc/septwatch/agent.toml");
    septwatch(&["agent", "--check-config", "--config", &config]);
    // The defaults, not what the machine had that it was made on.
    let defaults = root.text_of("empty.toml");
    fs::write(&defaults, "").unwrap();
    let printed = septwatch(&["agent", "--print-config", "--config", &defaults]);
    assert_eq!(fs::read_to_string(config).unwrap(), printed);
    let policies = root.at("usr/share/septwatch/policies");
    let mut names = Vec::new();
    for entry in fs::read_dir(policies).unwrap() {
        let path = entry.unwrap().path();
        // 3: this host cannot carry all of it out.
        let checked =
            Command::new(root.at("usr/bin/septwatch")).args(["policy", "check"]).arg(&path).output();
        let checked = checked.unwrap();
        assert!(matches!(checked.status.code(), Some(0 | 3)), "{path:?}: {checked:?}");
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    let listed = septwatch(&["policy", "list"]);
    assert!(!names.is_empty() && names.iter().all(|name| listed.contains(name)), "{names:?}: {listed}");
}

#[test]
fn from_the_package_to_the_alert() {
    // It must be able to run here; what runs is the one that is installed.
    septwatch!();
    if let Err(why) = program("prometheus").and_then(|_| program("prometheus-alertmanager")) {
        skip!("{why}");
    }
    let root = installed!();
    let port = web::port();
    let listen = format!("127.0.0.1:{port}");
    let config = root.text_of("etc/septwatch/agent.toml");
    let arguments = ["agent", "--demo", "--config", &config, "--metrics-listen", &listen];
    let running = Run::new(&root.at("usr/bin/septwatch"), &arguments).start_acting();
    until("the agent is ready", || web::get(port, "/readyz").filter(|(status, ..)| *status == 200));
    let watching = Watching::begin(&root.at("usr/share/septwatch/dashboards"), port);
    watching.is_told(&listen);
    running.signal(Signal::TERM);
    running.finish().exits(0);
}
