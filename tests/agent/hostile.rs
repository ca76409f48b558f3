//! What somebody else on the host, or at the other end of an output, may try.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use septwatch_tests::{
    septwatch, skip,
    support::process::{Done, Run},
};

use super::{
    otlp::between::{Between, Mode},
    servers::until,
    web,
};

/// A demo's agent over an empty /run/septwatch that this was done to, to its end.
fn over_run(septwatch: &Path, done: &str, arguments: &[&str]) -> Done {
    let script = format!(
        "mkdir -p /run/septwatch && mount -t tmpfs -o mode=700 tmpfs /run/septwatch && {done} && exec \"$0\" \"$@\""
    );
    let septwatch = septwatch.to_str().unwrap();
    let mut run = Run::new(Path::new("unshare"), &["--mount", "sh", "-c", &script, septwatch]);
    run.command().args(["agent", "--demo", "--metrics-listen", "none", "--duration", "1s"]).args(arguments);
    run.finish()
}

#[test]
fn a_place_that_others_write_is_none_for_the_ledgers_lock() {
    let septwatch = septwatch!();
    over_run(&septwatch, "true", &[]).exits(0);
    over_run(&septwatch, "chown 65534 /run/septwatch", &[]).exits(3).says(&["/run/septwatch", "uid 65534"]);
    over_run(&septwatch, "chmod 777 /run/septwatch", &[]).exits(3).says(&[
        "/run/septwatch",
        "mode 0777",
        "chmod go-w",
    ]);
    let link = "rmdir /run/septwatch/x 2>/dev/null; ln -s /etc/passwd /run/septwatch/lock";
    let before = fs::read("/etc/passwd").unwrap();
    over_run(&septwatch, link, &[]).exits(3).says(&["/run/septwatch/lock"]);
    assert_eq!(fs::read("/etc/passwd").unwrap(), before);
}

#[test]
fn a_policy_or_a_configuration_that_others_decide_about_is_not_followed() {
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("mine.toml");
    let shown = Run::new(&septwatch, &["policy", "show", "contain"]).finish().exits(0).stdout;
    fs::write(&policy, shown).unwrap();
    let path = policy.to_str().unwrap();
    let check = || {
        Run::new(&septwatch, &["agent", "--policy", path, "--check-config", "--metrics-listen", "none"])
            .finish()
    };
    check().exits(0);
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o666)).unwrap();
    check().exits(2).says(&["policy.name", path, "others can write it", "chmod go-w"]);
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o644)).unwrap();
    chown(&policy, Some(65534), None).unwrap();
    check().exits(2).says(&["policy.name", path, "uid 65534", "chown"]);
    chown(&policy, Some(0), None).unwrap();
    // Who can put another file in its place need not write it.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    check().exits(2).says(&["policy.name", "mode 0777"]);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    check().exits(0);
}

/// How long violations took to be known, in seconds: that of so many in a hundred was at most this, as far as buckets tell.
fn delay(text: &str, of_hundred: f64) -> f64 {
    let bucket = "septwatch_detection_delay_seconds_bucket{le=\"";
    let buckets: Vec<(f64, f64)> = text
        .lines()
        .filter_map(|line| line.strip_prefix(bucket)?.split_once("\"} "))
        .map(|(bound, count)| (bound.parse().unwrap_or(f64::INFINITY), count.parse().unwrap()))
        .collect();
    let all = buckets.last().map_or(0.0, |(_, count)| *count);
    assert!(all > 50.0, "{all} violations: {text}");
    buckets.iter().find(|(_, count)| *count >= all * of_hundred / 100.0).unwrap().0
}

#[test]
fn whatever_the_peers_of_all_outputs_do_detection_is_as_fast_as_without_them() {
    let septwatch = septwatch!();
    if let Err(why) = super::otlp::is_built(&septwatch) {
        skip!("{why}");
    }
    let folder = tempfile::tempdir().unwrap();
    // With a reader that does not read.
    let pipe = folder.path().join("pipe");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let [binary, pipe] = [&septwatch, &pipe].map(|path| path.to_str().unwrap());
    let watch = |more: &[&str], meanwhile: &dyn Fn()| {
        let port = web::port();
        let listen = format!("127.0.0.1:{port}");
        let mut run =
            Run::new("sh".as_ref(), &["-c", "exec \"$@\" >\"$0\"", pipe, binary, "agent", "--demo"]);
        run.command().args(["--pace", "20000", "--metrics-listen", &listen]).args(more);
        let running = run.start_acting();
        until("it is ready", || web::get(port, "/readyz").filter(|(status, ..)| *status == 200));
        meanwhile();
        let text = web::get(port, "/metrics").unwrap().2;
        running.signal(Signal::TERM);
        running.finish().exits(0);
        text
    };
    let alone = watch(&[], &|| thread::sleep(Duration::from_secs(6)));
    let (bus, collector) = (Between::start(web::port()), Between::start(web::port()));
    bus.is(Mode::Hangs);
    collector.is(Mode::Hangs);
    let servers = format!("nats://127.0.0.1:{}", bus.port);
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    let spool = folder.path().join("spool");
    let spool = spool.to_str().unwrap();
    let more = ["--bus-servers", &servers, "--bus-spool", spool, "--otlp-endpoint", &endpoint];
    let more = [&more[..], &["--otlp-protocol", "http", "--otlp-timeout", "500ms"]].concat();
    let more = [&more[..], &["--events-file", "-", "--events-queue", "16"]].concat();
    let beset = watch(&more, &|| {
        for mode in [Mode::Hangs, Mode::Resets, Mode::Refuses, Mode::Babbles] {
            bus.is(mode);
            collector.is(mode);
            thread::sleep(Duration::from_millis(1_500));
        }
    });
    for output in ["bus", "events", "otlp-logs"] {
        let failing = format!("septwatch_output_failing{{output=\"{output}\"}} 1");
        assert!(beset.lines().any(|line| line.starts_with(&failing)), "{output}: {beset}");
    }
    for of_hundred in [50.0, 99.0] {
        let [without, with] = [&alone, &beset].map(|text| delay(text, of_hundred));
        eprintln!(
            "{of_hundred} % within {without} s without outputs, within {with} s with all of them beset"
        );
        // One bucket, which is a factor of four: other programs have the CPUs, too.
        assert!(with <= without.max(0.001) * 4.001, "{of_hundred}: {with} after {without}: {beset}");
    }
}
