//! Where the fields of vital records lie, by name: written into every recording, so that a reader whose records are laid
//! out otherwise still finds them.

use std::mem::offset_of;

use septwatch_common::wire::{Kind, TdLife, VERSION, ViolationEvent, VmLife};
use serde::{Deserialize, Serialize};

/// Longest record that a recording may describe, in bytes.
const LONGEST: u32 = 1 << 16;

/// One field of a record: an unsigned little-endian number, or an array of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name; that of a field in a field has a dot.
    pub name: String,
    /// Where it begins, in bytes.
    pub offset: u32,
    /// How long it is, in bytes.
    pub size: u32,
}

/// One kind of vital record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Name of the kind.
    pub name: String,
    /// Its number in the file.
    pub kind: u8,
    /// How long it is, in bytes.
    pub size: u32,
    /// What it consists of.
    pub fields: Vec<Field>,
}

/// Size of the field that `_` reads.
const fn size<T, F>(_: fn(&T) -> &F) -> u32 {
    size_of::<F>() as u32
}

macro_rules! layout {
    ($kind:ident, $record:ident, [$($($field:ident).+),* $(,)?]) => {
        Layout {
            name: stringify!($record).to_owned(),
            kind: Kind::$kind as u8,
            size: size_of::<$record>() as u32,
            fields: vec![$(Field {
                name: concat!($(".", stringify!($field)),+).trim_start_matches('.').to_owned(),
                offset: offset_of!($record, $($field).+) as u32,
                size: size(|record: &$record| &record.$($field).+),
            }),*],
        }
    };
}

/// The layouts of this version.
pub fn current() -> Vec<Layout> {
    vec![
        layout!(
            TdLife,
            TdLife,
            [
                header.time_ns,
                header.seq,
                header.tgid,
                header.cpu,
                header.kind,
                header.version,
                tdr,
                cgroup,
                lent,
                id,
                tid,
                suspect,
                td,
                hkid,
                life,
                zero,
                comm,
            ]
        ),
        layout!(
            VmLife,
            VmLife,
            [
                header.time_ns,
                header.seq,
                header.tgid,
                header.cpu,
                header.kind,
                header.version,
                tdr,
                bugged_ns,
                lent,
                id,
                tid,
                stage,
                zero,
                comm,
            ]
        ),
        layout!(
            Violation,
            ViolationEvent,
            [
                header.time_ns,
                header.seq,
                header.tgid,
                header.cpu,
                header.kind,
                header.version,
                pfn,
                gfn,
                line,
                zap.begun_ns,
                zap.failed_ns,
                zap.failed_status,
                zap.ext_err1,
                zap.ext_err2,
                zap.pfn,
                zap.epoch,
                zap.closed,
                zap.failed_leaf,
                zap.progress,
                zap.busy,
                zap.busy_leaf,
                zap.level,
                zap.zero,
                released_ns,
                invalidation_ns,
                let_go.time_ns,
                let_go.inode,
                let_go.index,
                let_go.references,
                let_go.tid,
                let_go.op,
                let_go.zero,
                frames,
                tdr,
                cgroup,
                td_id,
                tid,
                suspect,
                td,
                other,
                violation,
                hook,
                kernel_frames,
                user_frames,
                zero,
                comm,
                kernel_stack,
                user_stack,
            ]
        ),
    ]
}

/// How the vital records of one recording become those of this version.
#[derive(Debug, Default)]
pub struct Translation {
    /// By the kind's number in the file; none where this version knows no such kind.
    kinds: Vec<Option<Moves>>,
}

#[derive(Debug)]
struct Moves {
    /// Bytes in the file.
    from: usize,
    /// Kind and bytes here.
    kind: u8,
    to: usize,
    /// Fields that both have: offset there, offset here, bytes. None where the layouts are the same.
    fields: Option<Vec<(usize, usize, usize)>>,
}

impl Translation {
    /// From the layouts that a recording names. None: they contradict themselves.
    pub fn from(layouts: &[Layout]) -> Option<Self> {
        let current = current();
        let mut kinds: Vec<Option<Moves>> = Vec::new();
        for there in layouts {
            let fits =
                |field: &Field| u64::from(field.offset) + u64::from(field.size) <= u64::from(there.size);
            if there.size > LONGEST || !there.fields.iter().all(fits) {
                return None;
            }
            let at = usize::from(there.kind);
            if kinds.len() <= at {
                kinds.resize_with(at + 1, || None);
            }
            kinds[at] = current.iter().find(|here| here.name == there.name).map(|here| moves(there, here));
        }
        Some(Self { kinds })
    }

    /// A record as this version has it, in `buffer`. None: this version has no such kind, or the length is wrong.
    pub fn apply<'a>(&self, kind: u8, record: &'a [u8], buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let moves = self.kinds.get(usize::from(kind))?.as_ref()?;
        if record.len() != moves.from {
            return None;
        }
        let Some(fields) = &moves.fields else { return Some(record) };
        buffer.clear();
        buffer.resize(moves.to, 0);
        for (from, to, bytes) in fields {
            buffer[*to..to + bytes].copy_from_slice(&record[*from..from + bytes]);
        }
        // Every record begins with a header.
        buffer[offset_of!(TdLife, header.kind)] = moves.kind;
        buffer[offset_of!(TdLife, header.version)] = VERSION;
        Some(buffer)
    }
}

fn moves(there: &Layout, here: &Layout) -> Moves {
    let shared = here.fields.iter().filter_map(|to| {
        let from = there.fields.iter().find(|from| from.name == to.name)?;
        Some((from.offset as usize, to.offset as usize, from.size.min(to.size) as usize))
    });
    let fields = (there != here).then(|| shared.collect());
    Moves { from: there.size as usize, kind: here.kind, to: here.size as usize, fields }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::event::Event;
    use septwatch_common::wire::Header;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    fn violation() -> ViolationEvent {
        let mut event = ViolationEvent::new_zeroed();
        event.header =
            Header { time_ns: 1, seq: 2, tgid: 3, cpu: 4, kind: Kind::Violation as u8, version: VERSION };
        event.pfn = 0x1234_5678_9abc;
        event.zap.failed_status = 0x8000_0200_0000_0001;
        event.comm = *b"qemu-system-x86\0";
        event.kernel_stack[31] = 77;
        event
    }

    #[test]
    fn the_fields_of_a_record_are_all_of_it() {
        for layout in current() {
            let mut end = 0;
            let mut fields = layout.fields;
            fields.sort_by_key(|field| field.offset);
            for field in fields {
                assert_eq!(field.offset, end, "{}: what lies before {}", layout.name, field.name);
                end += field.size;
            }
            assert_eq!(end, layout.size, "{}", layout.name);
        }
    }

    #[test]
    fn a_record_of_this_version_is_left_as_it_is() {
        let translation = Translation::from(&current()).unwrap_or_else(|| unreachable!());
        let event = violation();
        let mut buffer = Vec::new();
        let same = translation.apply(Kind::Violation as u8, event.as_bytes(), &mut buffer);
        assert_eq!(same, Some(event.as_bytes()));
        assert_eq!(translation.apply(Kind::Violation as u8, &event.as_bytes()[1..], &mut Vec::new()), None);
        assert_eq!(translation.apply(99, event.as_bytes(), &mut Vec::new()), None);
    }

    /// As an older version could have had it: another number, other places, a field that is not there yet, a shorter
    /// stack, and one that is no more.
    #[test]
    fn a_record_of_another_layout_keeps_what_both_have() {
        let mut older = current();
        let layout = &mut older[2];
        layout.kind = 9;
        layout.fields.retain(|field| field.name != "tid");
        let mut at = 0;
        for field in layout.fields.iter_mut().rev() {
            if field.name == "user_stack" {
                field.size = 8 * 4;
            }
            field.offset = at;
            at += field.size;
        }
        layout.fields.push(Field { name: "colour".to_owned(), offset: at, size: 8 });
        layout.size = at + 8;
        let mut event = violation();
        event.tid = 5;
        event.user_stack[3] = 33;
        event.user_stack[4] = 44;
        let here = &current()[2];
        let mut record = vec![0xee; layout.size as usize];
        for field in &layout.fields {
            if let Some(from) = here.fields.iter().find(|from| from.name == field.name) {
                let from = &event.as_bytes()[from.offset as usize..][..field.size as usize];
                record[field.offset as usize..][..field.size as usize].copy_from_slice(from);
            }
        }
        let translation = Translation::from(&older).unwrap_or_else(|| unreachable!());
        let mut buffer = Vec::new();
        let read = translation.apply(9, &record, &mut buffer).unwrap_or_else(|| unreachable!());
        event.tid = 0;
        event.user_stack[4] = 0;
        assert_eq!(Event::parse(read), Ok(Event::Violation(Box::new(event))));
    }

    #[test]
    fn layouts_that_contradict_themselves_are_refused() {
        let mut wrong = current();
        wrong[0].fields[0].size = 1000;
        assert!(Translation::from(&wrong).is_none());
        wrong[0].fields[0] = Field { name: "x".to_owned(), offset: u32::MAX, size: u32::MAX };
        assert!(Translation::from(&wrong).is_none());
        wrong[0].size = u32::MAX;
        assert!(Translation::from(&wrong).is_none());
    }
}
