//! Running other programs: what is called, and how a failure reads. Nothing about what they are called for.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Lines of a failed program's output that go into the error.
const TAIL: usize = 12;

/// Runs a command to its end without showing its output, and returns its stdout.
///
/// # Errors
/// The program cannot be run, or fails: the error holds the command and the last lines it printed.
pub fn quiet(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{}`", line(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let printed = stdout + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = printed.lines().collect();
    bail!("`{}`: {}\n{}", line(command), output.status, lines[lines.len().saturating_sub(TAIL)..].join("\n"))
}

/// A process that does not outlive what started it.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that runs in the time that nothing else wants (`SCHED_IDLE`): what is measured beside it is not disturbed.
pub fn idle(program: &str) -> Command {
    let mut command = Command::new("chrt");
    command.args(["--idle", "0", program]);
    command
}

/// Runs a command to its end with its output shown as it comes.
///
/// # Errors
/// The program cannot be run, or fails.
pub fn shown(command: &mut Command) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot run `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}`: {status}", line(command));
    }
    Ok(())
}

/// The command as a person would type it in a shell: variables set for it, program, arguments.
pub fn line(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value.filter(|_| name != "PATH") {
            let _ = write!(text, "{}={} ", name.display(), quoted(&value.to_string_lossy()));
        }
    }
    text += &quoted(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        let _ = write!(text, " {}", quoted(&argument.to_string_lossy()));
    }
    text
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=+./:,@%~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn a_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("mount");
        command.env("LC_ALL", "C").args(["-t", "bpf", "it's here", ""]);
        assert_eq!(line(&command), r"LC_ALL=C mount -t bpf 'it'\''s here' ''");
    }

    #[test]
    fn a_failure_names_the_command_and_its_last_words() {
        let error = quiet(Command::new("sh").args(["-c", "seq 30; echo broken >&2; exit 4"]))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("`sh -c 'seq 30; echo broken >&2; exit 4'`: exit status: 4"), "{error}");
        assert!(error.ends_with("30\nbroken"), "{error}");
        assert!(!error.contains("\n10\n"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = quiet(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert_eq!(error, "cannot run `no-such-program`");
    }
}
