//! /proc/kallsyms: which symbols the running kernel has, and where. What follows from it is decided in `plan`.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

/// Where the kernel lists its symbols.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// Symbols cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    /// The file cannot be read.
    #[error("{file}: {source}", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not `address type name [module]`.
    #[error("{file}: line {line} is not `address type name`", file = file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

/// The symbols that were asked for, of those that the kernel lists.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    addresses: HashMap<String, u64>,
    /// Whether data symbols are listed at all (`CONFIG_KALLSYMS_ALL`).
    pub data_listed: bool,
    /// Whether every address reads as 0: `kptr_restrict`, or no CAP_SYSLOG.
    pub restricted: bool,
}

impl Symbols {
    /// Reads the running kernel's.
    ///
    /// # Errors
    /// [`SymbolError`] where the file cannot be read or is not of its known form.
    pub fn running(wanted: &HashSet<&str>) -> Result<Self, SymbolError> {
        Self::read(Path::new(KALLSYMS), wanted)
    }

    fn read(file: &Path, wanted: &HashSet<&str>) -> Result<Self, SymbolError> {
        let failed = |source| SymbolError::Read { file: file.to_owned(), source };
        let reader = BufReader::with_capacity(1 << 16, File::open(file).map_err(failed)?);
        Self::parse(file, reader, wanted)
    }

    fn parse(file: &Path, mut reader: impl io::BufRead, wanted: &HashSet<&str>) -> Result<Self, SymbolError> {
        let mut symbols = Self { restricted: true, ..Self::default() };
        let mut buffer = Vec::new();
        for line in 1.. {
            buffer.clear();
            let read = reader
                .read_until(b'\n', &mut buffer)
                .map_err(|source| SymbolError::Read { file: file.to_owned(), source })?;
            if read == 0 {
                break;
            }
            let (address, kind, name) =
                fields(&buffer).ok_or_else(|| SymbolError::Line { file: file.to_owned(), line })?;
            symbols.restricted &= address == 0;
            // Static data: symbols that the linker script makes are global, and listed in any case.
            symbols.data_listed |= matches!(kind, b'd' | b'b');
            if wanted.contains(name) {
                symbols.addresses.entry(name.to_owned()).or_insert(address);
            }
        }
        Ok(symbols)
    }

    /// The address of a symbol that was asked for, None where the kernel does not list it or hides its address.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.addresses.get(name).copied().filter(|address| *address != 0)
    }

    /// Whether the kernel lists this symbol, be its address hidden or not.
    pub fn listed(&self, name: &str) -> bool {
        self.addresses.contains_key(name)
    }
}

/// Address, type and name of a line.
fn fields(line: &[u8]) -> Option<(u64, u8, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = words.next()?.as_bytes();
    Some((address, *kind.first()?, words.next()?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Symbols, SymbolError> {
        let wanted = HashSet::from(["vmemmap_base", "tdh_mem_track"]);
        Symbols::parse(Path::new("kallsyms"), text.as_bytes(), &wanted)
    }

    #[test]
    fn finds_what_is_wanted() {
        let symbols = parse(
            "ffffffff81000000 T _stext\nffffffff82000000 D vmemmap_base\nffffffff82000008 b static_data\nffffffffc0000000 t tdh_mem_track\t[kvm]\n",
        )
        .unwrap();
        assert_eq!(symbols.address("vmemmap_base"), Some(0xffff_ffff_8200_0000));
        assert_eq!(symbols.address("tdh_mem_track"), Some(0xffff_ffff_c000_0000));
        assert!(symbols.data_listed && !symbols.restricted && !symbols.listed("_stext"));
    }

    #[test]
    fn hidden_addresses_are_no_addresses() {
        let symbols = parse("0000000000000000 D vmemmap_base\n0000000000000000 T _stext\n").unwrap();
        assert!(symbols.restricted && symbols.listed("vmemmap_base"));
        assert_eq!(symbols.address("vmemmap_base"), None);
        assert!(!parse("ffffffff81000000 T _stext\n").unwrap().data_listed);
    }

    #[test]
    fn a_line_of_another_form_is_named() {
        let error = parse("ffffffff81000000 T _stext\nwhat\n").unwrap_err();
        assert_eq!(error.to_string(), "kallsyms: line 2 is not `address type name`");
    }
}
