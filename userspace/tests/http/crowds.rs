//! Many at once, and some that take their time.

use std::{
    io::{Read as _, Write as _},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use septwatch::collector::http::Access;

use super::support::*;

#[test]
fn of_a_hundred_at_once_each_is_answered_or_turned_away() {
    let server = begin(Access::default());
    let mut streams: Vec<_> = (0..100).map(|_| connect(&server)).collect();
    until(&server, "turned away", |clients| &clients.turned_away, 36);
    let answers = streams.iter_mut().map(|stream| said(stream, SCRAPE));
    let answered = answers.filter(|answer| status(answer) == Some(200)).count();
    let turned_away = server.clients().turned_away.load(Relaxed);
    assert_eq!((answered, turned_away), (64, 36));
    assert_eq!(scraped(&server).0, Some(200), "there is room again");
}

#[test]
fn sixty_that_dawdle_hold_up_nobody_and_are_cut_off() {
    let server = begin(Access::default());
    let mut slow: Vec<_> = (0..60).map(|_| connect(&server)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
    }
    let (answer, took) = scraped(&server);
    assert_eq!(answer, Some(200));
    assert!(took < Duration::from_millis(50), "{took:?}");
    // A byte now and then does not win time.
    let begun = Instant::now();
    let mut one = slow.pop().unwrap();
    while begun.elapsed() < LONG && one.write_all(b"x").is_ok() {
        thread::sleep(Duration::from_millis(200));
    }
    assert!(begun.elapsed() < LONG, "it may send as long as it likes");
    until(&server, "timeouts", |clients| &clients.timeouts, 60);
}

#[test]
fn a_scraper_that_keeps_its_connection_did_nothing_wrong() {
    let server = begin(Access::default());
    let mut stream = connect(&server);
    for _ in 0..2 {
        stream.write_all(KEPT).unwrap();
        let mut answer = [0; 512];
        let length = stream.read(&mut answer).unwrap();
        assert_eq!(status(&String::from_utf8_lossy(&answer[..length])), Some(200));
    }
    let begun = Instant::now();
    assert_eq!(rest(&mut stream), "", "it is closed without a word");
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    // The client sees the end before the server has counted it.
    thread::sleep(Duration::from_millis(500));
    let clients = server.clients();
    assert_eq!((clients.broken.load(Relaxed), clients.timeouts.load(Relaxed)), (0, 0));
    assert_eq!(clients.answers[0].load(Relaxed), 2);
}

#[test]
fn who_asks_and_does_not_read_is_cut_off() {
    let server = begin(Access::default());
    let mut stream = connect(&server);
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (answer, took) = scraped(&server);
    assert_eq!(answer, Some(200));
    assert!(took < Duration::from_millis(50), "{took:?}");
    until(&server, "timeouts", |clients| &clients.timeouts, 1);
    assert!(rest(&mut stream).len() < LARGE, "not all of it was sent");
}

#[test]
fn who_reads_slowly_gets_all_of_it() {
    let server = begin(Access::default());
    let mut stream = connect(&server);
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let (mut length, mut piece) = (0, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            read => length += read,
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert!(length > LARGE, "{length}");
}

#[test]
fn the_server_ends_at_once_whoever_hangs_on_it() {
    let server = begin(Access::default());
    let mut hanging: Vec<_> = (0..20).map(|_| connect(&server)).collect();
    for stream in &mut hanging {
        stream.write_all(b"GET /large HTTP/1.1\r\n").unwrap();
    }
    assert_eq!(scraped(&server).0, Some(200));
    let begun = Instant::now();
    drop(server);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn clients_that_dawdle_hold_up_nobody_and_are_cut_off() {
    let server = begin(Access::default());
    let mut slow: Vec<_> = (0..62)
        .map(|_| {
            let mut stream = connect(&server);
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    // The best of a few: the machine has other things to do.
    let took = (0..5).map(|_| {
        let begun = Instant::now();
        assert_eq!(status(&ask(&server, "GET /metrics HTTP/1.1")), Some(200));
        begun.elapsed()
    });
    assert!(took.min().unwrap() < Duration::from_millis(50));
    // When all places are taken, others are turned away at once.
    slow.extend((0..10).map(|_| connect(&server)));
    let begun = Instant::now();
    while server.clients().turned_away.load(Relaxed) < 5 {
        assert!(begun.elapsed() < Duration::from_secs(4), "nobody was turned away");
        thread::sleep(Duration::from_millis(5));
    }
    let mut cut = slow.swap_remove(0);
    let mut rest = Vec::new();
    let begun = Instant::now();
    let _ = cut.read_to_end(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
