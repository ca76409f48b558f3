//! The transition function, over every state, flag and operation, against a table.

use septwatch_common::{Level, Line, Op, PageKind, State, Violation, apply};

/// A row: what is known of the frame before; for each column of [`OPS`] the state and the flags after, and the
/// verdict. `r` = released, `u` = reused (used again).
///
/// Verdicts: D double-map, O out-of-order, M freed-while-mapped, B freed-while-blocked, F freed-unflushed, W
/// freed-while-owned, R reused-while-mapped.
const TABLE: &str = "
             lend        block       remove      early       flush       reclaim     free        batched     alloc       resize
free         mapped      free        free        free        free        free        free        free        free        free
mapped       mapped!D    blocked     removed!O   removed!O   mapped!O    free        mapped-r!M  mapped-r!M  mapped-ru!R mapped
mapped-r     mapped!D    blocked-r   removed-r!O removed-r!O mapped-r!O  free        mapped-ru!R mapped-r    mapped-ru!R mapped-r
mapped-ru    mapped!D    blocked-ru  removed-ru!O removed-ru!O mapped-ru!O free      mapped-ru   mapped-ru   mapped-ru   mapped-ru
blocked      mapped!D    blocked     removed     removed!O   blocked!O   free        blocked-r!B blocked-r!B blocked-ru!R blocked
blocked-r    mapped!D    blocked-r   removed-r   removed-r!O blocked-r!O free        blocked-ru!R blocked-r  blocked-ru!R blocked-r
blocked-ru   mapped!D    blocked-ru  removed-ru  removed-ru!O blocked-ru!O free      blocked-ru  blocked-ru  blocked-ru  blocked-ru
removed      mapped!O    removed     removed     removed     free        free        free!F      free!F      free!F      removed
removed-r    mapped!O    removed-r   removed-r   removed-r   free        free        removed-ru!R removed-r  removed-ru!R removed-r
removed-ru   mapped!O    removed-ru  removed-ru  removed-ru  free        free        removed-ru  removed-ru  removed-ru  removed-ru
owned        mapped!D    owned       owned       owned       owned       free        owned-r!W   owned-r!W   owned-ru!R  owned
owned-r      mapped!D    owned-r     owned-r     owned-r     owned-r     free        owned-ru!R  owned-r     owned-ru!R  owned-r
owned-ru     mapped!D    owned-ru    owned-ru    owned-ru    owned-ru    free        owned-ru    owned-ru    owned-ru    owned-ru
tentative    mapped      tentative   removed     removed     free        free        free        free        tentative   tentative
";

const NEW: Line = Line::open(PageKind::Leaf, 77, Level::L4K, 0x1234);
const STATES: [State; 6] =
    [State::Free, State::Mapped, State::Blocked, State::Removed, State::Owned, State::Tentative];

fn op(name: &str) -> Op {
    match name {
        "lend" => Op::Lend(NEW),
        "block" => Op::Block,
        "remove" => Op::Remove { ordered: true },
        "early" => Op::Remove { ordered: false },
        "flush" => Op::Flush,
        "reclaim" => Op::Reclaim,
        "free" => Op::Free { batched: false },
        "batched" => Op::Free { batched: true },
        "alloc" => Op::Alloc,
        "resize" => Op::Resize(Level::L4K),
        _ => panic!("no operation {name}"),
    }
}

/// Bits 3 and 4, as the table in line.rs has them.
fn flags(line: Line) -> (bool, bool) {
    (line.0 & 8 != 0, line.0 & 16 != 0)
}

fn line(name: &str) -> Line {
    let (state, flags) = name.split_once('-').unwrap_or((name, ""));
    let state = STATES.into_iter().find(|other| other.name() == state).unwrap();
    let kind = if state == State::Owned { PageKind::Tdcx } else { PageKind::Leaf };
    if state == State::Free {
        return Line::FREE;
    }
    let bits = u64::from(flags.contains('r')) << 3 | u64::from(flags.contains('u')) << 4;
    Line(Line::open(kind, 0x1ffe, Level::L2M, (1 << 39) - 2).with_state(state).0 | bits)
}

fn violation(letter: Option<&str>) -> Option<Violation> {
    letter.map(|letter| match letter {
        "D" => Violation::DoubleMap,
        "O" => Violation::OutOfOrder,
        "M" => Violation::FreedWhileMapped,
        "B" => Violation::FreedWhileBlocked,
        "F" => Violation::FreedUnflushed,
        "W" => Violation::FreedWhileOwned,
        "R" => Violation::ReusedWhileMapped,
        _ => panic!("no violation {letter}"),
    })
}

#[test]
fn every_transition_is_as_in_the_table() {
    let mut rows = TABLE.lines().filter(|line| !line.is_empty());
    let ops: Vec<_> = rows.next().unwrap().split_whitespace().collect();
    let mut cells = 0;
    for row in rows {
        let mut row = row.split_whitespace();
        let from = row.next().unwrap();
        let before = line(from);
        for (name, cell) in ops.iter().zip(row) {
            let (to, letter) = cell.split_once('!').map_or((cell, None), |(to, letter)| (to, Some(letter)));
            let (after, verdict) = apply(before, op(name));
            assert_eq!(verdict, violation(letter), "{from} {name}");
            assert_eq!((after.state(), flags(after)), (line(to).state(), flags(line(to))), "{from} {name}");
            if after.is_open() && *name != "lend" {
                let level = if *name == "resize" && matches!(before.state(), State::Mapped | State::Blocked) {
                    Level::L4K
                } else {
                    Level::L2M
                };
                assert_eq!(
                    (after.owner(), after.kind(), after.level(), after.gfn()),
                    (before.owner(), before.kind(), level, before.gfn()),
                    "{from} {name}: nothing else changes"
                );
            } else {
                assert_eq!(after, if after.is_open() { NEW } else { Line::FREE }, "{from} {name}");
            }
            cells += 1;
        }
    }
    assert_eq!(cells, 14 * 10, "every state with every operation");
}

/// Whatever happens to a line between two lendings, it answers at most one `freed-…` and one `reused-while-mapped`.
#[test]
fn a_lending_has_one_release_and_one_reuse() {
    let ops = ["block", "remove", "early", "flush", "free", "batched", "alloc", "resize"].map(op);
    let mut lives = vec![(line("mapped"), 0, 0), (line("owned"), 0, 0)];
    for _ in 0..6 {
        lives = lives
            .into_iter()
            .flat_map(|(line, freed, reused)| {
                ops.map(|op| {
                    let (after, verdict) = apply(line, op);
                    use Violation::{FreedUnflushed, FreedWhileBlocked, FreedWhileMapped, FreedWhileOwned};
                    let release = matches!(
                        verdict,
                        Some(FreedWhileMapped | FreedWhileBlocked | FreedUnflushed | FreedWhileOwned)
                    );
                    let reuse = verdict == Some(Violation::ReusedWhileMapped);
                    (after, freed + u8::from(release), reused + u8::from(reuse))
                })
            })
            .collect();
        lives.sort_by_key(|(line, freed, reused)| (line.0, *freed, *reused));
        lives.dedup();
        for (line, freed, reused) in &lives {
            assert!(*freed <= 1 && *reused <= 1, "{line:?}: {freed} released, {reused} reused");
        }
    }
}
