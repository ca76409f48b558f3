//! Names for return addresses: in the kernel from /proc/kallsyms, in a process from its mappings.

use std::fs;

/// Symbols of the kernel's code, by address. Empty where the kernel hides them.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    symbols: Vec<(u64, String)>,
}

impl KernelSymbols {
    /// Reads the running kernel's. Without them, addresses are shown as numbers.
    pub fn running() -> Self {
        Self::parse(&fs::read_to_string("/proc/kallsyms").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let symbol = |line: &str| {
            let mut fields = line.split_ascii_whitespace();
            let address = u64::from_str_radix(fields.next()?, 16).ok()?;
            let code = matches!(fields.next()?, "t" | "T" | "w" | "W");
            (code && address != 0).then(|| Some((address, fields.next()?.to_owned())))?
        };
        let mut symbols: Vec<_> = text.lines().filter_map(symbol).collect();
        symbols.sort_unstable();
        Self { symbols }
    }

    /// `name+0x1f` of the function around an address, or the address.
    pub fn name(&self, address: u64) -> String {
        let after = self.symbols.partition_point(|(start, _)| *start <= address);
        match after.checked_sub(1).and_then(|at| self.symbols.get(at)) {
            // What is further away than any function is long is not in it.
            Some((start, name)) if address - start < 1 << 20 => format!("{name}+{:#x}", address - start),
            _ => format!("{address:#x}"),
        }
    }
}

/// `file+0x1f` for addresses in a process: the mapped file and the place in it. The address itself where there is no
/// such mapping, or no such process any more.
pub fn in_process(pid: u32, addresses: &[u64]) -> Vec<String> {
    if addresses.is_empty() {
        return Vec::new();
    }
    places(&fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default(), addresses)
}

fn places(maps: &str, addresses: &[u64]) -> Vec<String> {
    let hex = |text| u64::from_str_radix(text, 16).ok();
    // `start-end rwxp offset device inode path`
    let mappings: Vec<_> = maps
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let offset = hex(fields.nth(1)?)?;
            let file = fields.nth(2)?.rsplit('/').next()?;
            Some((hex(start)?..hex(end)?, offset, file))
        })
        .collect();
    let place = |address: &u64| {
        let mapping = mappings.iter().find(|(range, ..)| range.contains(address));
        mapping.map_or_else(
            || format!("{address:#x}"),
            |(range, offset, file)| format!("{file}+{:#x}", address - range.start + offset),
        )
    };
    addresses.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_name_of_the_function_around_it() {
        let symbols = KernelSymbols::parse(
            "ffffffff81000100 T second\nffffffff81000000 T first\nffffffff81000080 D data\n0 T hidden\nbad\n",
        );
        assert_eq!(symbols.name(0xffff_ffff_8100_0090), "first+0x90");
        assert_eq!(symbols.name(0xffff_ffff_8100_0100), "second+0x0");
        assert_eq!(symbols.name(0xffff_ffff_8000_0000), "0xffffffff80000000");
        assert_eq!(symbols.name(0xffff_ffff_9000_0000), "0xffffffff90000000");
        assert_eq!(KernelSymbols::default().name(1), "0x1");
    }

    #[test]
    fn an_address_in_a_process_is_a_place_in_a_file() {
        let maps =
            "400000-500000 r-xp 00001000 08:01 42   /usr/bin/vmm\n500000-600000 rw-p 00000000 00:00 0\nbad\n";
        assert_eq!(places(maps, &[0x40_0010, 0x50_0010, 0x1]), ["vmm+0x1010", "0x500010", "0x1"]);
        assert!(in_process(0, &[]).is_empty());
    }
}
