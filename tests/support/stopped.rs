//! Holding one thread of a process while its others go on: ptrace(2).

use std::{io, marker::PhantomData, ptr::null_mut};

use super::process::Running;

/// The main thread of a run, held. It goes on when this is dropped.
#[derive(Debug)]
pub struct MainThread {
    tid: libc::pid_t,
    /// Only the thread that attached may detach.
    _stays_here: PhantomData<*mut ()>,
}

impl MainThread {
    /// Stops it.
    ///
    /// # Errors
    /// This process may not trace that one.
    ///
    /// # Panics
    /// It does not stop.
    pub fn stop(running: &Running) -> io::Result<Self> {
        let tid = running.pid().cast_signed();
        request(libc::PTRACE_SEIZE, tid)?;
        let held = Self { tid, _stays_here: PhantomData };
        request(libc::PTRACE_INTERRUPT, tid)?;
        let mut status = 0;
        // SAFETY: `status` is ours and may be written. Our own child: it was not waited for since it was seen running.
        let stopped = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        assert!(stopped == tid && libc::WIFSTOPPED(status), "it is not stopped: {status:#x}");
        Ok(held)
    }
}

impl Drop for MainThread {
    fn drop(&mut self) {
        // It fails when the thread is gone: then nothing is held.
        let _ = request(libc::PTRACE_DETACH, self.tid);
    }
}

fn request(request: libc::c_uint, tid: libc::pid_t) -> io::Result<()> {
    // SAFETY: these requests take no pointers: both are null, which for SEIZE means no options and for DETACH no signal.
    let done = unsafe { libc::ptrace(request, tid, null_mut::<libc::c_void>(), null_mut::<libc::c_void>()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
