//! The real programs, started for a test and ended with it.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use septwatch_tests::support::PATIENCE;

use super::web;

/// Where a program is: among those that `cargo xtask test` unpacked, or in `PATH`.
///
/// # Errors
/// It is in neither.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let unpacked = ["SEPTWATCH_SERVERS", "SEPTWATCH_CHECKERS"].into_iter().filter_map(env::var_os);
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = |usr| ["bin", "sbin"].map(|programs| Path::new(&usr).join(programs));
    let mut folders = unpacked.flat_map(programs).chain(env::split_paths(&path));
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()));
    found.ok_or_else(|| format!("there is no {name}: `cargo xtask test 2` fetches it"))
}

/// A program at work. Dropping it kills it.
pub struct Server {
    name: &'static str,
    child: Child,
}

impl Server {
    /// Starts a program, and waits until a port answers at a path.
    pub fn start(name: &'static str, arguments: &[&str], port: u16, path: &str) -> Self {
        let mut command = with_its_files(&program(name).unwrap());
        let child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self { name, child: child.spawn().unwrap() };
        until(name, || {
            assert!(server.child.try_wait().unwrap().is_none(), "{} ended: {arguments:?}", server.name);
            web::get(port, path).filter(|(status, ..)| *status == 200)
        });
        server
    }
}

/// A program that finds what its package has in /usr/share, though it was only unpacked: in a mount namespace of its own,
/// that lies over what is there.
fn with_its_files(program: &Path) -> Command {
    let unpacked = env::var_os("SEPTWATCH_SERVERS").map(PathBuf::from);
    let share = unpacked.filter(|usr| program.starts_with(usr)).map(|usr| usr.join("share"));
    let Some(share) = share else { return Command::new(program) };
    let script = "mount -t overlay -o lowerdir=\"$0\":/usr/share overlay /usr/share && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(share.canonicalize().unwrap()).arg(program);
    command
}

/// A program with all that its package and those that it depends on have, though they were only unpacked.
pub fn over_usr(name: &str) -> Command {
    let Some(usr) = env::var_os("SEPTWATCH_CHECKERS") else { return Command::new(name) };
    let script = "mount -t overlay -o lowerdir=\"$0\":/usr overlay /usr && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(usr).arg(name);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until there is something, and returns it.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a tool that checks a file, which must find nothing.
pub fn checks(tool: &str, arguments: &[&str], input: Option<&Path>) {
    let stdin = input.map_or(Stdio::null(), |path| std::fs::File::open(path).unwrap().into());
    let Output { status, stdout, stderr } =
        Command::new(program(tool).unwrap()).args(arguments).stdin(stdin).output().unwrap();
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(status.success(), "{tool} {arguments:?}: {said}");
}
