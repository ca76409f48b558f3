//! /proc/PID/maps: which file is mapped where in a process.

use std::path::PathBuf;

/// The file that is mapped at an address, and the offset in it. A line of maps: `55d0-55e0 r-xp 00002000 08:01 123 /path`.
pub fn locate(maps: &str, address: u64) -> Option<(PathBuf, u64)> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        fields.nth(2)?;
        let path = line.find('/').map(|at| &line[at..])?;
        (start..end).contains(&address).then(|| (PathBuf::from(path), address - start + offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_its_file() {
        let maps = "5500-5600 r--p 00000000 08:01 7 /usr/bin/a b\n5600-5700 r-xp 00001000 08:01 7 /usr/bin/a b\n\
                    7000-7100 rw-p 00000000 00:00 0 \n";
        assert_eq!(locate(maps, 0x5610), Some((PathBuf::from("/usr/bin/a b"), 0x1010)));
        assert_eq!(locate(maps, 0x7010), None);
        assert_eq!(locate("garbage\n5-\n", 1), None);
    }
}
