//! The transition function and the fields of a line.

use super::*;

#[test]
fn fields_do_not_touch() {
    let line = Line::open(PageKind::Tdcx, MAX_OWNER, Level::L256T, (1 << 39) - 1);
    assert_eq!(
        (line.kind(), line.owner(), line.level(), line.gfn(), line.state()),
        (PageKind::Tdcx, MAX_OWNER, Level::L256T, (1 << 39) - 1, State::Owned)
    );
    assert!(!line.is_released() && !line.is_reused());
    assert_eq!(Line::open(PageKind::Leaf, 3, Level::L2M, 512).nth(511).gfn(), 1023);
}

#[test]
fn a_leaf_lives_and_dies_quietly() {
    let open = Line::open(PageKind::Leaf, 1, Level::L4K, 7);
    let mut line = Line::FREE;
    for op in
        [Op::Lend(open), Op::Block, Op::Remove { ordered: true }, Op::Flush, Op::Free { batched: false }]
    {
        let (next, violation) = apply(line, op);
        assert_eq!(violation, None, "{op:?}");
        line = next;
    }
    assert_eq!(line, Line::FREE);
}

#[test]
fn both_free_tracepoints_tell_of_one_release() {
    let open = Line::open(PageKind::Leaf, 1, Level::L4K, 7);
    let (line, first) = apply(open, Op::Free { batched: false });
    assert_eq!(first, Some(Violation::FreedWhileMapped));
    let (line, second) = apply(line, Op::Free { batched: true });
    assert_eq!((second, line.is_reused()), (None, false));
    let (line, third) = apply(line, Op::Free { batched: false });
    assert_eq!(third, Some(Violation::ReusedWhileMapped));
    assert_eq!(apply(line, Op::Alloc).1, None);
    assert_eq!(apply(open, Op::Free { batched: true }).1, Some(Violation::FreedWhileMapped));
}

#[test]
fn levels_change_in_place() {
    let open = Line::open(PageKind::Leaf, 1, Level::L2M, 512);
    let (line, _) = apply(open, Op::Resize(Level::L4K));
    assert_eq!((line.level(), line.gfn(), line.state()), (Level::L4K, 512, State::Mapped));
    assert_eq!(apply(line, Op::Resize(Level::L2M)).0, open);
}
