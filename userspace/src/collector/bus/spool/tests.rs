#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
use super::*;

fn line(number: u64) -> Vec<u8> {
    format!("{number} {}\n", "x".repeat(500)).into_bytes()
}

/// The numbers of all lines that are there, and the place after the last.
fn all(unsent: &mut Unsent) -> (Vec<u64>, Place) {
    let (mut numbers, mut end) = (Vec::new(), unsent.at);
    let number =
        |line: &[u8]| String::from_utf8_lossy(line).split(' ').next().unwrap().parse::<u64>().unwrap();
    while let Some((place, number)) = unsent.next(number).unwrap() {
        numbers.push(number);
        end = place;
    }
    (numbers, end)
}

#[test]
fn lines_come_out_in_order_over_segments_and_processes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, mut unsent) = Spool::open(folder.path(), 1 << 20).unwrap();
    assert!(unsent.next(|_| ()).unwrap().is_none());
    (0..1000).for_each(|number| spool.append(&line(number)).unwrap());
    assert!(segments(folder.path()).unwrap().len() > 3);
    assert_eq!(unsent.count().unwrap(), 1000);
    let (numbers, _) = all(&mut unsent);
    assert!(numbers.into_iter().eq(0..1000));
    // What nobody acknowledged comes again.
    unsent.rewind();
    let places: Vec<_> = (0..700).map(|_| unsent.next(|_| ()).unwrap().unwrap().0).collect();
    unsent.acknowledge(places[599]).unwrap();
    assert!(matches!(Spool::open(folder.path(), 1 << 20), Err(SpoolError::Taken { .. })));
    drop((spool, unsent));
    let (mut spool, mut unsent) = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.append(&line(1000)).unwrap();
    let (numbers, end) = all(&mut unsent);
    assert!(numbers.into_iter().eq(600..1001));
    unsent.acknowledge(end).unwrap();
    assert_eq!(segments(folder.path()).unwrap().len(), 1);
    drop((spool, unsent));
    let (_spool, mut unsent) = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(unsent.count().unwrap(), 0);
}

#[test]
fn a_full_spool_refuses_and_has_room_again_when_it_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, mut unsent) = Spool::open(folder.path(), SMALLEST).unwrap();
    let mut taken = 0;
    while spool.append(&line(taken)).is_ok() {
        taken += 1;
    }
    assert!(matches!(spool.append(&line(0)), Err(SpoolError::Full(SMALLEST))));
    let size: u64 = segments(folder.path()).unwrap().iter().map(|(_, size)| size).sum();
    assert!(size <= SMALLEST && size > SMALLEST - 600, "{size}");
    let (numbers, end) = all(&mut unsent);
    assert!(numbers.into_iter().eq(0..taken));
    unsent.acknowledge(end).unwrap();
    (taken..2 * taken).for_each(|number| {
        spool.append(&line(number)).unwrap();
        let (numbers, end) = all(&mut unsent);
        assert_eq!(numbers, [number]);
        unsent.acknowledge(end).unwrap();
    });
}

#[test]
fn half_a_line_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.append(&line(0)).unwrap();
    spool.file.write_all(b"1 half").unwrap();
    drop(spool);
    let (mut spool, mut unsent) = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.append(&line(2)).unwrap();
    assert_eq!(all(&mut unsent).0, [0, 2]);
    // In a segment that is over, too.
    spool.file.write_all(b"3 half").unwrap();
    spool.next_segment().unwrap();
    spool.append(&line(4)).unwrap();
    unsent.rewind();
    assert_eq!(all(&mut unsent).0, [0, 2, 4]);
}

#[test]
fn a_disk_without_room_refuses_and_leaves_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, mut unsent) = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.append(&line(0)).unwrap();
    // A device that is always full stands for the disk.
    spool.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
    assert!(matches!(spool.append(&line(1)), Err(SpoolError::File { .. })));
    // What cannot be cut off ends a segment: the next line is in one of its own.
    assert_eq!(spool.end, Place { segment: 2, offset: 0 });
    spool.append(&line(2)).unwrap();
    assert_eq!(all(&mut unsent).0, [0, 2]);
}
