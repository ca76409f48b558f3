//! What changed between two runs is named, with its factor and what is tolerated; what did not, or not by more than chance,
//! is not.

use septwatch_common::{Leaf, zap::PFN_UNKNOWN};

use crate::{Place, recording::Making};

/// So many pages, all zapped; of four, the REMOVE of so many is BUSY once; calls take so long.
fn run(pages: u64, busy: u64, took_ns: u32) -> Making {
    let mut making = Making::td();
    making.took_ns = took_ns;
    for n in 0..pages {
        making.map(0x400 + n, 0x10 + n);
        making.zap(0x400 + n, 0x10 + n, u64::from(n % 4 < busy));
    }
    making
}

/// The same, with so many zaps that fail, and as long until the page is freed.
fn failing(zaps: u64, until_free_ns: u64) -> Making {
    let mut making = run(200, 1, 0);
    for n in 0..zaps {
        making.map(0x800 + n, 0x400 + n);
        making.call(Leaf::MemRangeBlock, PFN_UNKNOWN, 0x400 + n, 0xc000_0b0d_0000_0001);
        making.now_ns += until_free_ns;
        making.free(0x800 + n);
    }
    making
}

fn pair(a: Making, b: Making) -> Place {
    let place = Place::new();
    place.put("a.swt", a);
    place.put("b.swt", b);
    place
}

#[test]
fn the_same_run_twice_differs_in_nothing() {
    let place = pair(run(200, 1, 500), run(200, 1, 500));
    let done = place.run("diff a.swt b.swt").exits(0);
    assert_eq!(done.out, "A a.swt\nB b.swt\nwithin tolerance\n");
    place.run("diff a.swt b.swt --all").exits(0).says(&[
        "calls TDH.MEM.PAGE.REMOVE BUSY per 1000",
        "latency",
        "kernel release",
    ]);
}

#[test]
fn twice_the_busy_names_leaf_factor_and_tolerance() {
    let place = pair(run(400, 1, 0), run(400, 2, 0));
    let done = place.run("diff a.swt b.swt").exits(1);
    let line =
        done.out.lines().find(|line| line.starts_with("! calls TDH.MEM.PAGE.REMOVE BUSY per 1000")).unwrap();
    // 100 of 500, then 200 of 600.
    for word in ["200.00", "333.33", "x 1.67", "tolerated: at most x 1.5"] {
        assert!(line.contains(word), "{line}");
    }
    // And the calls are 20 % more.
    done.says(&["! calls TDH.MEM.PAGE.REMOVE calls", "x 1.20  tolerated: within 10%", "2 out of tolerance"]);
    place.run("diff a.swt b.swt --max-busy-factor 2 --max-calls-change 25%").exits(0);
    // Fewer answers of BUSY are no regression.
    place.run("diff b.swt a.swt --max-calls-change 25%").exits(0);
}

#[test]
fn small_counts_are_noise() {
    let place = pair(run(8, 1, 0), run(20, 1, 0));
    place.run("diff a.swt b.swt --max-calls-change 0% --min-count 1").exits(0);
    place.run("diff a.swt b.swt").exits(0);
}

#[test]
fn errors_and_statuses_are_compared() {
    let place = pair(failing(0, 0), failing(40, 1000));
    let done = place.run("diff a.swt b.swt --max-calls-change 50%").exits(1);
    done.says(&[
        "TDH.MEM.RANGE.BLOCK TDX_EPT_ENTRY_STATE_INCORRECT per 1000",
        "new  tolerated: at most x 1.5",
    ])
    .says(&[
        "! violations zap-failed found",
        "! violations freed-while-mapped found",
        "tolerated: no change",
    ]);
}

#[test]
fn windows_and_latencies_that_grow_are_out() {
    let place = pair(failing(40, 1_000_000), failing(40, 2_500_000));
    let done = place.run("diff a.swt b.swt").exits(1);
    done.says(&["! window failed-zap-to-release p50", "tolerated: at most x 2", "1 out of tolerance"]);
    place.run("diff a.swt b.swt --max-window-factor 3").exits(0);
    // Too few of them say nothing, nor do too short ones.
    place.run("diff a.swt b.swt --min-window 3ms").exits(0);
    place.run("diff a.swt b.swt --min-count 50").exits(0);
    let place = pair(run(200, 1, 500), run(200, 1, 900));
    let done = place.run("diff a.swt b.swt").exits(1);
    done.says(&["! latency TDH.MEM.TRACK p50", "x 1.80", "tolerated: at most x 1.5"]);
    place.run("diff a.swt b.swt --max-latency-factor 2").exits(0);
}

#[test]
fn a_hook_that_is_gone_is_out_and_another_kernel_is_not() {
    let mut other = run(200, 1, 0);
    other.header.kernel.release = "7.4.0-test".to_owned();
    other.header.plan[0].bound = Some("another way".to_owned());
    let place = pair(run(200, 1, 0), other);
    place.run("diff a.swt b.swt").exits(0).says(&[
        "host kernel release",
        "7.4.0-test",
        "hook tdh_mem_page_remove bound",
    ]);
    let mut gone = run(200, 1, 0);
    gone.header.plan[0].bound = None;
    place.put("gone.swt", gone);
    place
        .run("diff a.swt gone.swt")
        .exits(1)
        .says(&["! hook tdh_mem_page_remove bound", "tolerated: stays bound"]);
}

#[test]
fn lost_records_are_out() {
    let mut lossy = run(200, 1, 0);
    lossy.lose(4);
    let place = pair(run(200, 1, 0), lossy);
    place.run("diff a.swt b.swt").exits(1).says(&["! lost records", "new  tolerated: at most 0 in each"]);
    place.run("diff a.swt b.swt --max-loss 4").exits(0);
}

#[test]
fn counts_stand_in_for_calls_that_were_not_recorded() {
    let life = |busy| {
        let mut making = Making::default();
        making.header.what = septwatch::recording::header::What::Life;
        for n in 0..400 {
            making.call(Leaf::MemTrack, PFN_UNKNOWN, 0, if n < busy { crate::recording::BUSY } else { 0 });
        }
        making
    };
    let place = pair(life(50), life(100));
    place.run("diff a.swt b.swt").exits(1).says(&[
        "! calls TDH.MEM.TRACK BUSY per 1000",
        "125.00",
        "250.00",
        "x 2.00",
    ]);
}

#[test]
fn json_and_markdown_say_the_same() {
    let place = pair(run(400, 1, 0), run(400, 2, 0));
    let [object] = place.run("diff a.swt b.swt --json --markdown m.md").exits(1).json().try_into().unwrap();
    assert_eq!(
        (&object["within_tolerance"], &object["out_of_tolerance"]),
        (&false.into(), &2.into()),
        "{object}"
    );
    let rows = object["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["figure"] == "BUSY per 1000").unwrap();
    assert_eq!(
        (&row["of"], &row["a"], &row["out"]),
        (&"TDH.MEM.PAGE.REMOVE".into(), &200.0.into(), &true.into())
    );
    let markdown = place.read("m.md");
    assert!(
        markdown.contains("| **out** | calls TDH.MEM.PAGE.REMOVE BUSY per 1000 | 200.00 | 333.33 | x 1.67 |"),
        "{markdown}"
    );
}

#[test]
fn what_cannot_be_compared_is_bad_input() {
    let mut cut = run(10, 0, 0);
    cut.end = None;
    let place = pair(run(10, 0, 0), cut);
    place.run("diff a.swt b.swt").complains(&["b.swt", "only whole recordings can be compared"]);
    place.run("diff a.swt none.swt").complains(&["none.swt: No such file"]);
    for flag in [
        "--max-busy-factor 0.5",
        "--max-busy-factor x",
        "--max-calls-change 10",
        "--max-calls-change=-1%",
        "--min-count=-1",
        "--min-window 5",
    ] {
        let done = place.run(&format!("diff a.swt a.swt {flag}")).exits(2);
        assert!(done.wrong.contains(flag.split([' ', '=']).next().unwrap()), "{}", done.wrong);
    }
}
