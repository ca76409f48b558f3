//! The reader on blobs made by hand: newer kinds, wider fields, and what hostile input may hold. That it reads
//! what kernels really have is tested against fixtures of five kernels, in `tests/plan.rs`.

use std::{collections::HashSet, path::Path, sync::Arc};

use super::*;

/// A blob of these types; strings are `\0`, then those given, each with its NUL.
fn blob(types: &[u32], strings: &str, layouts: &[[u8; 4]]) -> Vec<u8> {
    let header_len = if layouts.is_empty() { 24 } else { 32 };
    let (types_len, layouts_len) = (4 * types.len() as u32, 4 * layouts.len() as u32);
    let mut data = vec![0x9f, 0xeb, 1, 0];
    let mut header = vec![header_len, 0, types_len, types_len + layouts_len, strings.len() as u32 + 1];
    if !layouts.is_empty() {
        header.extend([types_len, layouts_len]);
    }
    data.extend(header.iter().chain(types).flat_map(|word| word.to_le_bytes()));
    data.extend(layouts.iter().flatten());
    data.push(0);
    data.extend(strings.as_bytes());
    data
}

fn parse(data: Vec<u8>) -> Result<Btf, BtfError> {
    Btf::parse(Path::new("vmlinux"), data, None, &HashSet::from(["f", "s", "t"]))
}

const fn info(kind: u32, vlen: u32) -> u32 {
    kind << 24 | vlen
}

/// `void f(t level, ...)`, t a typedef of an `enum`: types 1 to 5; string offsets of "f", "t", "level" and "e".
const F: &str = "f\0t\0level\0e\0";
const FUNCTION: [u32; 20] = [
    11,
    info(19, 1),
    8,
    0,
    1,
    2, // 1: enum64 e
    3,
    info(8, 0),
    1, // 2: typedef enum e t
    0,
    info(10, 0),
    2, // 3: const t
    0,
    info(13, 1),
    0,
    5,
    3, // 4: void (const t level)
    1,
    info(12, 1),
    4, // 5: f
];

#[test]
fn prototypes_look_through_modifiers() {
    let btf = parse(blob(&FUNCTION, F, &[])).unwrap();
    let id = btf.named(Kind::Func, "f").next().unwrap();
    let prototype = btf.prototype(id).unwrap();
    assert_eq!(prototype.returns.base, Base::Void);
    let [argument] = prototype.arguments.as_slice() else { panic!("one argument") };
    assert_eq!((argument.name.as_str(), argument.ty.to_string().as_str()), ("level", "t"));
    assert_eq!(argument.ty.base, Base::Enum { name: "e".to_owned() });
}

#[test]
fn more_elements_than_the_old_field_could_count() {
    let mut types = vec![0, info(6, 70_000), 4];
    types.extend(std::iter::repeat_n(0, 2 * 70_000));
    types.extend([1, info(4, 0), 24]);
    let btf = parse(blob(&types, "s\0", &[])).unwrap();
    assert_eq!((btf.len(), btf.size_of("s")), (2, Some(24)));
}

#[test]
fn a_newer_kind_is_skipped_where_the_writer_says_how_long_it_is() {
    // Kind 40 needs the seven bits of newer kernels: one word, and two for each element.
    let types = [0, info(40, 2), 0, 7, 7, 7, 7, 7, 1, info(4, 0), 24];
    let mut layouts = vec![[0, 0, 0, 0]; 41];
    layouts[40] = [4, 8, 0, 0];
    let btf = parse(blob(&types, "s\0", &layouts)).unwrap();
    assert_eq!((btf.len(), btf.size_of("s"), btf.unread()), (2, Some(24), None));
    assert_eq!(btf.type_ref(1).unwrap().base, Base::Other);
}

#[test]
fn a_newer_kind_of_unknown_length_ends_the_reading_and_is_told() {
    let types = [1, info(4, 0), 24, 0, info(40, 2), 0, 7, 7, 3, info(4, 0), 8];
    let btf = Arc::new(parse(blob(&types, "s\0t\0", &[])).unwrap());
    assert_eq!((btf.size_of("s"), btf.size_of("t"), btf.unread()), (Some(24), None, Some(40)));
    let module = Btf::parse(Path::new("kvm"), blob(&[], "", &[]), Some(btf), &HashSet::new());
    assert!(matches!(module, Err(BtfError::Malformed { what: Malformed::UnreadBase(40), .. })));
}

#[test]
fn members_by_path_through_anonymous_ones() {
    const FLAG: u32 = 1 << 31;
    let types = [
        0,
        info(1, 0),
        4,
        32, // 1: int
        0,
        info(5, 1),
        4,
        3,
        1,
        0, // 2: union { int t }
        1,
        info(4, 3) | FLAG,
        16, // 3: struct s
        0,
        2,
        64, // the union, at byte 8
        5,
        1,
        3 << 24 | 96, // int b : 3
        7,
        3,
        32, // struct s in: it holds itself, which C does not allow
    ];
    let btf = parse(blob(&types, "s\0t\0b\0in\0", &[])).unwrap();
    let offset = |path| btf.field("s", path).unwrap().map(|field| field.offset);
    assert_eq!(offset("t"), Some(8));
    assert_eq!(offset("in.in.t"), Some(16));
    assert_eq!(offset("b"), None, "a bit field has no offset in bytes");
    assert_eq!(offset("t.t"), None);
    assert_eq!(btf.field("none", "t").unwrap(), None);
}

#[test]
fn a_module_goes_on_where_its_base_ends() {
    let base = Arc::new(parse(blob(&FUNCTION, F, &[])).unwrap());
    // The base has 5 types and 13 bytes of strings.
    let mut data = blob(&[13, info(12, 1), 4], "s\0", &[]);
    data.remove(data.len() - 3);
    data[20] = 2;
    let module = Btf::parse(Path::new("kvm"), data, Some(base), &HashSet::from(["s"])).unwrap();
    let id = module.named(Kind::Func, "s").next().unwrap();
    assert_eq!(id, 6);
    assert_eq!(module.prototype(id).unwrap().arguments[0].name, "level");
}

#[test]
fn what_leads_to_itself_ends() {
    let what =
        |types: &[u32], id| parse(blob(types, "s\0", &[])).unwrap().type_ref(id).unwrap_err().to_string();
    assert_eq!(what(&[0, info(8, 0), 1], 1), "vmlinux: type 1 leads to itself, or through too many others");
    assert_eq!(what(&[0, info(2, 0), 1], 1), "vmlinux: type 1 leads to itself, or through too many others");
    assert_eq!(what(&[0, info(8, 0), 9], 1), "vmlinux: there is no type 9");
    assert_eq!(what(&[99, info(4, 0), 9], 1), "vmlinux: there is no string at 0x63");
    // A structure of anonymous members that are the structure itself: 2 to the power of 32 ways.
    let btf = parse(blob(&[1, info(4, 2), 8, 0, 1, 0, 0, 1, 0], "s\0", &[])).unwrap();
    let error = btf.field("s", "t").unwrap_err();
    assert_eq!(error.to_string(), "vmlinux: type 1 leads to itself, or through too many others");
}

#[test]
fn unsound_files_are_named_with_the_offset() {
    let error = |data| parse(data).unwrap_err().to_string();
    assert_eq!(error(vec![]), "vmlinux: offset 0x0: the file ends inside its header");
    assert_eq!(
        error(b"\x7fELF".to_vec()),
        "vmlinux: offset 0x0: not BTF: starts with 0x457f, not with 0xeb9f"
    );
    let good = blob(&FUNCTION, F, &[]);
    let with = |at: usize, byte| {
        let mut data = good.clone();
        data[at] = byte;
        error(data)
    };
    assert_eq!(with(2, 9), "vmlinux: offset 0x2: BTF version 9, known is 1");
    assert_eq!(with(4, 99), "vmlinux: offset 0x8: the type section reaches beyond the end of the file");
    assert_eq!(with(19, 1), "vmlinux: offset 0x10: the string section reaches beyond the end of the file");
    assert_eq!(
        with(good.len() - 1, b'x'),
        "vmlinux: offset 0x68: the string section does not start and end with a NUL"
    );
    // The enum64 has 200 elements.
    assert_eq!(with(28, 200), "vmlinux: offset 0x18: type 1 reaches beyond the type section");
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    assert!(error(swapped).contains("other byte order"));
}
