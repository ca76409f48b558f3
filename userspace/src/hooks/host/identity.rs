//! Which kernel this is, exactly.

use std::fs;

/// `NT_GNU_BUILD_ID` (include/linux/build_id.h)
const BUILD_ID: u32 = 3;

/// GNU build id of the running vmlinux, in hexadecimal; none where it has none.
pub fn build_id() -> Option<String> {
    let id = find_build_id(&fs::read("/sys/kernel/notes").ok()?)?.to_vec();
    Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Version of the TDX module that is loaded, such as 1.5.06; none where the kernel does not tell
/// (Documentation/ABI/testing/sysfs-devices-faux-tdx-host).
pub fn tdx_module() -> Option<String> {
    let version = fs::read_to_string("/sys/devices/faux/tdx_host/version").ok()?;
    Some(version.trim().to_owned())
}

/// ELF notes: sizes of name and description, type, then both, each filled up to a multiple of 4 bytes.
fn find_build_id(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (head, rest) = notes.split_at_checked(12)?;
        let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (name, description) = (number(0) as usize, number(4) as usize);
        let (name, rest) = rest.split_at_checked(name.checked_next_multiple_of(4)?)?;
        let (id, _) = rest.split_at_checked(description)?;
        if number(8) == BUILD_ID && name.starts_with(b"GNU\0") {
            return Some(id);
        }
        notes = rest.get(description.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::find_build_id;

    fn note(kind: u32, name: &[u8], description: &[u8]) -> Vec<u8> {
        let sizes = [name.len() as u32, description.len() as u32, kind];
        let mut note: Vec<u8> = sizes.iter().flat_map(|number| number.to_ne_bytes()).collect();
        for part in [name, description] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let mut notes = note(0x101, b"Linux\0", &[9]);
        notes.extend(note(3, b"Xen\0", &[8]));
        notes.extend(note(3, b"GNU\0", &[1, 2, 3]));
        assert_eq!(find_build_id(&notes), Some(&[1, 2, 3][..]));
        for end in 0..notes.len() - 4 {
            assert_eq!(find_build_id(&notes[..end]), None, "{end}");
        }
        assert_eq!(find_build_id(&[0xff; 40]), None);
    }
}
