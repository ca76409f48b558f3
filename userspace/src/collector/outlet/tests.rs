#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
use std::sync::mpsc;

use super::*;
use crate::collector::message::tests::message;

struct Slow(mpsc::Receiver<bool>);

impl Peer for Slow {
    fn deliver(&mut self, _: &Message, _: u64) -> io::Result<()> {
        match self.0.recv() {
            Ok(true) => Ok(()),
            _ => Err(io::Error::other("refused")),
        }
    }
}

#[test]
fn nobody_waits_and_everything_is_counted() {
    let (go, gate) = mpsc::channel();
    let mut outlet = Outlet::begin("slow", 2, Slow(gate)).unwrap();
    let begun = Instant::now();
    for _ in 0..10_000 {
        outlet.offer(&message(1));
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    let counted = outlet.counts().counted();
    assert_eq!((counted.offered, counted.delivered), (10_000, 0));
    // Two wait in the queue, and at most one in the peer's hands.
    assert!((2..=3).contains(&counted.waiting()), "{counted:?}");
    assert_eq!(counted.trouble.as_deref(), Some("its queue is full"));
    let waiting = counted.waiting();
    go.send(true).unwrap();
    (1..waiting).for_each(|_| go.send(false).unwrap());
    outlet.end(Duration::from_secs(20));
    let after = outlet.counts().counted();
    assert_eq!((after.delivered, after.waiting()), (1, 0));
    assert_eq!(after.lost, 9_999);
    assert_eq!(after.trouble.as_deref(), Some("refused"));
}

#[test]
fn a_peer_that_hangs_does_not_hold_up_the_end() {
    let (go, gate) = mpsc::channel::<bool>();
    let mut outlet = Outlet::begin("hung", 8, Slow(gate)).unwrap();
    outlet.offer(&message(1));
    let begun = Instant::now();
    outlet.end(Duration::from_millis(50));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(outlet.counts().counted().waiting(), 1);
    drop(go);
}

/// Takes so many at a time, and answers as it is told; where nobody tells it any more, all is well.
struct Together(mpsc::Receiver<Result<(), Undelivered>>, mpsc::Sender<(usize, u64)>);

impl Batches for Together {
    const MOST: usize = 3;
    const WAIT: Duration = Duration::from_secs(20);

    fn takes(message: &Message) -> bool {
        message.header.is_some_and(|header| header.seq != 7)
    }

    fn deliver(&mut self, messages: &[Arc<Message>], lost: u64) -> Result<(), Undelivered> {
        self.1.send((messages.len(), lost)).unwrap();
        self.0.recv().unwrap_or(Ok(()))
    }
}

fn later() -> Result<(), Undelivered> {
    Err(Undelivered::Later { why: "busy".to_owned(), after: None })
}

fn refused(messages: usize) -> Result<(), Undelivered> {
    Err(Undelivered::Lost { messages, why: "refused".to_owned() })
}

#[test]
fn several_are_passed_on_together_again_or_in_part() {
    let ((tell, told), (saw, seen)) = (mpsc::channel(), mpsc::channel());
    let mut outlet = Outlet::begin("together", 100, Together(told, saw)).unwrap();
    for seq in 0..10 {
        outlet.offer(&message(seq));
    }
    for answer in [later(), Ok(()), refused(2), refused(usize::MAX)] {
        tell.send(answer).unwrap();
    }
    // The first three twice; of the second three one was passed on, and so that two were lost is told later.
    let calls: Vec<_> = (0..4).map(|_| seen.recv().unwrap()).collect();
    assert_eq!(calls, [(3, 0), (3, 0), (3, 0), (3, 2)]);
    outlet.offer(&message(10));
    drop(tell);
    outlet.end(Duration::from_secs(20));
    assert_eq!(seen.recv().unwrap(), (1, 5));
    let counted = outlet.counts().counted();
    // Number 7 was none of its business.
    assert_eq!((counted.offered, counted.delivered, counted.lost), (10, 5, 5));
    assert_eq!((counted.waiting(), counted.trouble), (0, None));
}

#[test]
fn who_must_wait_is_heard_once_more_at_the_end() {
    let ((tell, told), (saw, seen)) = (mpsc::channel(), mpsc::channel());
    let mut outlet = Outlet::begin("busy", 100, Together(told, saw)).unwrap();
    (0..3).for_each(|seq| outlet.offer(&message(seq)));
    let after = Some(Duration::from_secs(200));
    tell.send(Err(Undelivered::Later { why: "busy".to_owned(), after })).unwrap();
    seen.recv().unwrap();
    while outlet.counts().counted().trouble.is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    tell.send(later()).unwrap();
    outlet.end(Duration::from_secs(20));
    let counted = outlet.counts().counted();
    assert_eq!((counted.offered, counted.delivered, counted.lost), (3, 0, 3));
    assert_eq!(counted.trouble.as_deref(), Some("busy"));
}

#[test]
fn reports_are_counted_and_the_last_is_at_the_end() {
    let mut answers = vec![Ok(()), refused(1), later()].into_iter();
    let report = move || answers.next().unwrap_or(Ok(()));
    let mut outlet = Outlet::every("reports", Duration::from_millis(1), report).unwrap();
    while outlet.counts().counted().offered < 3 {
        thread::sleep(Duration::from_millis(1));
    }
    // What is offered to all others is nothing to it.
    outlet.offer(&message(1));
    outlet.end(Duration::from_secs(20));
    let counted = outlet.counts().counted();
    assert_eq!((counted.lost, counted.offered), (2, counted.delivered + 2));
    assert!(counted.offered >= 4 && counted.trouble.is_none(), "{counted:?}");
}
