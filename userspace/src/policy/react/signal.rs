//! `stop` and `kill`: signals to the VMM, by its pidfd.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Signal, pidfd_send_signal},
};

use super::{
    LOOK, ReactError, call,
    vmm::{Stat, Vmm},
};

/// How long every thread may take to stop: one in a system call stops when that is over.
const STOPS: Duration = Duration::from_secs(1);
/// How long a process may take to end: it destroys its VM first.
const ENDS: Duration = Duration::from_secs(5);

/// Stops every thread of a VMM.
///
/// # Errors
/// It is gone, or a thread still runs after a second: which, and in which state.
pub fn stop(vmm: &Vmm) -> Result<String, ReactError> {
    send(vmm, Signal::STOP)?;
    let start = Instant::now();
    loop {
        let (threads, running) = running(vmm)?;
        if running.is_empty() {
            return Ok(format!("all {threads} threads of process {} are stopped", vmm.pid()));
        }
        if start.elapsed() >= STOPS {
            return Err(ReactError::NotSeen(format!(
                "{} of {threads} threads of process {} are not stopped after {STOPS:?}: {}",
                running.len(),
                vmm.pid(),
                running.join(", ")
            )));
        }
        sleep(LOOK);
    }
}

/// How many threads there are, and those that are not stopped, with their states.
fn running(vmm: &Vmm) -> Result<(usize, Vec<String>), ReactError> {
    let threads = vmm.numbers("task")?;
    if threads.is_empty() {
        return Err(ReactError::NotSeen(format!("process {} has ended", vmm.pid())));
    }
    let mut running = Vec::new();
    for thread in &threads {
        // A thread that ends meanwhile does not run.
        let Ok(stat) = vmm.read(&format!("task/{thread}/stat")) else { continue };
        match Stat::parse(&stat).map(|stat| stat.state) {
            Some('T' | 't' | 'X' | 'Z') => {}
            state => running.push(format!("{thread} ({})", state.unwrap_or('?'))),
        }
    }
    Ok((threads.len(), running))
}

/// Ends a VMM.
///
/// # Errors
/// It is gone already, or still there after five seconds.
pub fn kill(vmm: &Vmm) -> Result<String, ReactError> {
    send(vmm, Signal::KILL)?;
    if vmm.ends_within(ENDS)? {
        return Ok(format!("process {} has ended", vmm.pid()));
    }
    let seen = running(vmm).map(|(_, running)| running.join(", ")).unwrap_or_default();
    Err(ReactError::NotSeen(format!("process {} has not ended after {ENDS:?}: threads {seen}", vmm.pid())))
}

fn send(vmm: &Vmm, signal: Signal) -> Result<(), ReactError> {
    // The demo may hold what is its own, and no more.
    if vmm.pid() == rustix::process::getpid() {
        return Err(ReactError::Refused(format!("process {} is this one", vmm.pid())));
    }
    match pidfd_send_signal(vmm.pidfd(), signal) {
        Err(Errno::SRCH) => Err(ReactError::Refused(format!("process {} is gone", vmm.pid()))),
        sent => sent.map_err(call("pidfd_send_signal")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::{
        super::{
            host::Host,
            vmm::tests::{Sleeper, stat, tree},
        },
        *,
    };

    #[test]
    fn a_process_is_stopped_and_then_ended() {
        let sleeper = Sleeper::new();
        let vmm = Vmm::find(&Host::default(), &sleeper.subject()).unwrap();
        assert_eq!(stop(&vmm).unwrap(), format!("all 1 threads of process {} are stopped", vmm.pid()));
        assert_eq!(Stat::parse(&vmm.read("stat").unwrap()).unwrap().state, 'T');
        assert_eq!(kill(&vmm).unwrap(), format!("process {} has ended", vmm.pid()));
        drop(sleeper);
        assert!(matches!(kill(&vmm), Err(ReactError::Refused(_))));
    }

    #[test]
    fn a_thread_that_does_not_stop_is_named() {
        let (root, sleeper) = (tempfile::tempdir().unwrap(), Sleeper::new());
        let pid = sleeper.0.id();
        let file = |name: &str, state| (format!("proc/{pid}/{name}"), stat(pid, state, 1, 0));
        let files = [file("stat", 'S'), file("task/11/stat", 'T'), file("task/12/stat", 'D')];
        tree(root.path(), &files.each_ref().map(|(name, text)| (name.as_str(), text.as_str())));
        let vmm = Vmm::find(&Host::under(root.path()), &sleeper.subject()).unwrap();
        let error = stop(&vmm).unwrap_err().to_string();
        assert_eq!(error, format!("1 of 2 threads of process {pid} are not stopped after 1s: 12 (D)"));
    }
}
