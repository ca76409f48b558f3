//! Nothing lent, nothing paid: releases are not watched until a TD begins, and then before anything of it can come back.
#![expect(clippy::unwrap_used, reason = "inside of a test, a panic is its failure")]

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};
use septwatch::{
    hooks::lock::Lock,
    source::{
        demo::{
            module,
            vmm::{FIRST_GFN, Host, Steps, Td},
        },
        kernel::Kernel,
        open::{self, Options},
        session::Session,
    },
};
use septwatch_common::Violation;

/// Takes in what arrives, what has arrived by the time that it is `over` included.
fn pump(session: &mut Session, mut over: impl FnMut(&mut Session) -> bool) -> Vec<Violation> {
    let (begun, mut found) = (Instant::now(), Vec::new());
    loop {
        let is_over = over(session);
        session.tend().unwrap();
        session.pump(|_, verdict| found.extend(verdict.map(|verdict| verdict.violation))).unwrap();
        if is_over {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{found:?}");
        thread::sleep(Duration::from_micros(100));
    }
}

/// From now on this thread runs there. A TD's thread waits in the kernel, and keeps its CPU from who would attach.
fn on_cpu(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).unwrap();
}

/// Links at releases that this process has.
fn links() -> usize {
    let infos = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let infos = infos.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    infos.filter(|info| info.contains("tp_name:\tmm_page_free")).count()
}

fn opened() -> (Kernel, module::Config) {
    open::demo(module::Shape::V7_3, &Options::default(), None).unwrap()
}

#[test]
fn nothing_is_attached_until_a_td_begins_and_then_its_first_release_is_seen() {
    on_cpu(0);
    let _lock = Lock::take("a test").unwrap();
    let (kernel, config) = opened();
    let mut session = Session::new(kernel).unwrap();
    assert_eq!(links(), 2);
    session.rest_after(Some(Duration::from_millis(1)));
    pump(&mut session, |session| !session.kernel().watches_releases());
    assert_eq!(links(), 0);

    let host = Arc::new(Host::new(config, 64, false).unwrap());
    // Twice: the second TD begins after the hooks have been away once more.
    for _ in 0..2 {
        let guest = thread::spawn({
            let host = Arc::clone(&host);
            move || {
                on_cpu(1);
                let mut td = Td::create(&host, 16, 1).unwrap();
                td.add(FIRST_GFN).unwrap().unwrap();
                // Nobody zaps it: a use after free, as early as it can be.
                td.punch(FIRST_GFN, 1, Steps::NONE).unwrap();
                td.finalize().unwrap();
                td.repair_freed().unwrap();
                td.teardown(None).unwrap();
            }
        });
        let found = pump(&mut session, |session| guest.is_finished() && !session.kernel().is_lent().unwrap());
        guest.join().unwrap();
        assert_eq!(session.kernel().unwatched().unwrap(), 0, "the hooks came too late");
        assert_eq!(found, [Violation::FreedWhileMapped]);
        pump(&mut session, |session| !session.kernel().watches_releases());
        assert_eq!(links(), 0);
    }
}
