//! `notify`: a command, or a webhook. In a thread of its own, so that nothing that acts waits for it.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::{LOOK, ReactError, call};
use crate::{
    authorities,
    policy::reaction::{Channel, Notify},
};

/// How many may be told at a time.
const IN_FLIGHT: usize = 16;
/// How much of what a command prints is kept, in bytes.
const KEPT: u64 = 2048;
/// Where a command is looked for if this process has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Tells others, and counts.
#[derive(Debug, Default)]
pub struct Notifier {
    in_flight: Arc<AtomicUsize>,
    dropped: AtomicU64,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// What came of it, in words.
pub type Told = Result<String, ReactError>;

impl Notifier {
    /// Begins to tell, and calls `done` with what came of it, in another thread.
    ///
    /// # Errors
    /// Too many are being told; it is counted.
    pub fn begin(
        &self,
        notify: &Notify,
        message: Vec<u8>,
        done: impl FnOnce(Told) + Send + 'static,
    ) -> Result<(), ReactError> {
        let dropped = |why: String| {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            Err(ReactError::Refused(why))
        };
        if self.in_flight.fetch_add(1, Ordering::AcqRel) >= IN_FLIGHT {
            self.in_flight.fetch_sub(1, Ordering::AcqRel);
            return dropped(format!("dropped: {IN_FLIGHT} are under way already"));
        }
        let (notify, in_flight) = (notify.clone(), Arc::clone(&self.in_flight));
        let tell = move || {
            let told = match &notify.channel {
                Channel::Command(words) => command(words, &message, notify.timeout),
                Channel::Webhook(url) => webhook(url, &message, notify.timeout),
            };
            done(told);
            in_flight.fetch_sub(1, Ordering::AcqRel);
        };
        let thread = match thread::Builder::new().name("septwatch-tell".to_owned()).spawn(tell) {
            Ok(thread) => thread,
            Err(error) => {
                self.in_flight.fetch_sub(1, Ordering::AcqRel);
                return dropped(format!("dropped: no thread for it: {error}"));
            }
        };
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// How many are under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// How many were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits for those under way: each has its timeout.
    pub fn finish(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // One that panicked has nothing to tell either.
            let _ = thread.join();
        }
    }
}

/// Runs a command without a shell, with the message as its input.
fn command(words: &[String], message: &[u8], timeout: Duration) -> Told {
    let refused = |why: &str| ReactError::Refused(why.to_owned());
    let (program, arguments) = words.split_first().ok_or_else(|| refused("no command is named"))?;
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only a system call is made, which touches no memory.
    unsafe { command.pre_exec(close_on_exec) };
    let start = Instant::now();
    let failed = |source| ReactError::File { path: program.clone(), source };
    let mut child = command.spawn().map_err(failed)?;
    let (sender, output) = mpsc::channel();
    for pipe in [child.stdout.take().map(Pipe::Out), child.stderr.take().map(Pipe::Err)].into_iter().flatten()
    {
        let sender = sender.clone();
        thread::spawn(move || sender.send(pipe.read()));
    }
    drop(sender);
    // A command that reads nothing must not hold this thread up.
    let input = child.stdin.take();
    let message = message.to_owned();
    thread::spawn(move || feed(input, &message));
    let pid = Pid::from_child(&child);
    let ended = ends(pid, start + timeout);
    // With what it left running, which could keep the pipes. Before it is waited for: then its number is still its own.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait().map_err(failed)?;
    let ended = ended.map_err(call("waitid"))?;
    let mut printed = Vec::new();
    while let Ok(some) = output.recv_timeout(Duration::from_millis(200)) {
        printed.extend(some);
    }
    let printed = String::from_utf8_lossy(&printed).trim_end().to_owned();
    let printed =
        if printed.is_empty() { "it printed nothing".to_owned() } else { format!("it printed: {printed}") };
    if !ended {
        return Err(ReactError::NotSeen(format!(
            "{program} took more than {timeout:?} and was killed; {printed}"
        )));
    }
    if status.success() {
        return Ok(format!("{program} ended with 0; {printed}"));
    }
    Err(ReactError::NotSeen(format!("{program}: {status}; {printed}")))
}

/// Marks everything but the standard streams: what this process was given by its own parent without the mark, too.
fn close_on_exec() -> io::Result<()> {
    // SAFETY: it takes numbers only, and the descriptors stay open in this process until it runs the command.
    let marked = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if marked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

enum Pipe {
    Out(std::process::ChildStdout),
    Err(std::process::ChildStderr),
}

impl Pipe {
    /// The first of what comes, when all of it has come: a command that prints more must not stop for it.
    fn read(self) -> Vec<u8> {
        let mut kept = Vec::new();
        // What was read before an error is kept.
        let _ = match self {
            Self::Out(mut pipe) => {
                (&mut pipe).take(KEPT).read_to_end(&mut kept).and_then(|_| drain(&mut pipe))
            }
            Self::Err(mut pipe) => {
                (&mut pipe).take(KEPT).read_to_end(&mut kept).and_then(|_| drain(&mut pipe))
            }
        };
        kept
    }
}

fn drain(pipe: &mut impl io::Read) -> io::Result<()> {
    io::copy(pipe, &mut io::sink()).map(|_| ())
}

fn feed(input: Option<ChildStdin>, message: &[u8]) {
    // A command need not read what it is given.
    let _ = input.map(|mut input| input.write_all(message));
}

/// Whether a child ends until a moment. It still can be waited for.
fn ends(pid: Pid, until: Instant) -> rustix::io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        if waitid(WaitId::Pid(pid), options)?.is_some() {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
}

/// Sends the message by POST.
fn webhook(url: &str, message: &[u8], timeout: Duration) -> Told {
    let not_sent = |error: ureq::Error| ReactError::NotSeen(format!("{url}: {error}"));
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent("septwatch")
        .proxy(None);
    if url.starts_with("https:") {
        config = config.tls_config(tls()?);
    }
    let agent = config.build().new_agent();
    let answer = agent.post(url).content_type("application/json").send(message).map_err(not_sent)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(format!("{url} answered {status}"));
    }
    Err(ReactError::NotSeen(format!("{url} answered {status}")))
}

fn tls() -> Result<ureq::tls::TlsConfig, ReactError> {
    let (path, pem) = authorities::of_host().map_err(|error| ReactError::Refused(error.to_string()))?;
    authorities::tls(&pem).map_err(|error| ReactError::Refused(format!("{}: {error}", path.display())))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn run(words: &[&str], timeout: Duration) -> Told {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        command(&words, b"{\"violation\":\"zap-failed\"}\n", timeout)
    }

    #[test]
    fn a_command_gets_the_violation_and_no_shell_sees_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it");
        let took = run(&["/usr/bin/tee", file.to_str().unwrap(), "$(id)"], Duration::from_secs(5));
        assert!(took.is_ok(), "{took:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"violation\":\"zap-failed\"}\n");
        let _ = std::fs::remove_file("$(id)");
    }

    #[test]
    fn a_command_that_fails_or_takes_too_long_is_said_to() {
        let failed = run(&["/bin/false"], Duration::from_secs(5)).unwrap_err().to_string();
        assert!(failed.contains('1'), "{failed}");
        let start = std::time::Instant::now();
        assert!(run(&["/bin/sleep", "60"], Duration::from_millis(100)).is_err());
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(run(&["/no/such/program"], Duration::from_secs(1)).is_err());
    }

    /// One that answers a request with this status line, and returns what it was sent.
    fn server(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        use std::io::{BufRead as _, BufReader, Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let from = head.len();
                reader.read_line(&mut head).unwrap();
                let line = head[from..].to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            write!(stream, "HTTP/1.1 {answer}\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").unwrap();
            head + &String::from_utf8(body).unwrap()
        });
        (url, served)
    }

    #[test]
    fn a_webhook_gets_the_violation_as_json() {
        let (url, served) = server("204 No Content");
        let told = webhook(&url, b"{\"violation\":\"zap-failed\"}", Duration::from_secs(5));
        assert!(told.as_ref().is_ok_and(|said| said.contains("204")), "{told:?}");
        let request = served.join().unwrap();
        assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains("content-type: application/json"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"violation\":\"zap-failed\"}"), "{request}");
    }

    #[test]
    fn a_webhook_that_refuses_sends_elsewhere_or_is_not_there_was_not_told() {
        for answer in ["500 Oops", "302 Found"] {
            let (url, served) = server(answer);
            let told = webhook(&url, b"{}", Duration::from_secs(5)).unwrap_err().to_string();
            assert!(told.contains(&answer[..3]), "{told}");
            served.join().unwrap();
        }
        assert!(webhook("http://127.0.0.1:1/", b"{}", Duration::from_secs(5)).is_err());
    }
}
