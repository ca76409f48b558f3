//! Names for return addresses: in the kernel from /proc/kallsyms, in a process from what it maps.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
};

use crate::{hooks::mapped::locate, model::verdict::Verdict};

/// The places in a violation's stacks by name, innermost first. The addresses mean something only as long as that kernel
/// and that process run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// In the kernel.
    pub kernel: Vec<String>,
    /// In the process.
    pub user: Vec<String>,
}

impl Places {
    /// By the symbols of the running kernel and the files of the running process.
    pub fn now(verdict: &Verdict, symbols: &KernelSymbols) -> Self {
        Self {
            kernel: verdict.kernel_stack.iter().map(|at| symbols.name(*at)).collect(),
            user: user_names(verdict.tgid, &verdict.user_stack),
        }
    }

    /// The addresses, where nobody can name them any more.
    pub fn nameless(verdict: &Verdict) -> Self {
        let hex = |addresses: &[u64]| addresses.iter().map(|at| format!("{at:#x}")).collect();
        Self { kernel: hex(&verdict.kernel_stack), user: hex(&verdict.user_stack) }
    }
}

/// Symbols of the kernel's code, by address. Empty where the kernel hides them.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    symbols: Vec<Symbol>,
    /// All names: there are hundreds of thousands, and one allocation for each would take several times as much.
    names: String,
}

/// A symbol: its address, and where its name is.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    name: u32,
    length: u32,
}

impl KernelSymbols {
    /// Reads the running kernel's. Without them, addresses are shown as numbers.
    pub fn running() -> Self {
        File::open("/proc/kallsyms").map(|file| Self::parse(BufReader::new(file))).unwrap_or_default()
    }

    fn parse(mut text: impl BufRead) -> Self {
        let mut all = Self::default();
        let mut line = String::new();
        // What cannot be read ends it: what was read is right.
        while text.read_line(&mut line).is_ok_and(|length| length != 0) {
            all.add(&line);
            line.clear();
        }
        let Self { symbols, names } = &mut all;
        let key = |symbol: &Symbol| (symbol.address, symbol.of(names));
        symbols.sort_unstable_by(|one, other| key(one).cmp(&key(other)));
        symbols.shrink_to_fit();
        names.shrink_to_fit();
        all
    }

    /// Takes a line in, if it is one of a function.
    fn add(&mut self, line: &str) -> Option<()> {
        let mut fields = line.split_ascii_whitespace();
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        let is_code = matches!(fields.next()?, "t" | "T" | "w" | "W");
        if !is_code || address == 0 {
            return None;
        }
        let text = fields.next()?;
        let (name, length) = (self.names.len().try_into().ok()?, text.len().try_into().ok()?);
        self.names.push_str(text);
        self.symbols.push(Symbol { address, name, length });
        Some(())
    }

    /// `name+0x1f` of the function around an address, or the address.
    pub fn name(&self, address: u64) -> String {
        let after = self.symbols.partition_point(|symbol| symbol.address <= address);
        match after.checked_sub(1).and_then(|at| self.symbols.get(at)) {
            // What is further away than any function is long is not in it.
            Some(symbol) if address - symbol.address < 1 << 20 => {
                format!("{}+{:#x}", symbol.of(&self.names), address - symbol.address)
            }
            _ => format!("{address:#x}"),
        }
    }
}

impl Symbol {
    fn of(self, names: &str) -> &str {
        let name = self.name as usize;
        names.get(name..name + self.length as usize).unwrap_or_default()
    }
}

/// `file+0x1f` for return addresses in a process, in the files that it maps. The address alone where the process is gone
/// or nothing is mapped there.
fn user_names(tgid: u32, addresses: &[u64]) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{tgid}/maps")).unwrap_or_default();
    addresses
        .iter()
        .map(|address| in_file(&maps, *address).unwrap_or_else(|| format!("{address:#x}")))
        .collect()
}

/// Offset in the file that is mapped at an address.
fn in_file(maps: &str, address: u64) -> Option<String> {
    let (path, offset) = locate(maps, address)?;
    let file = path.file_name()?.to_string_lossy();
    Some(format!("{file}+{offset:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_name_of_the_function_around_it() {
        let text =
            "ffffffff81000100 T second\nffffffff81000000 T first\nffffffff81000080 D data\n0 T hidden\nbad\n";
        let symbols = KernelSymbols::parse(text.as_bytes());
        assert_eq!(symbols.name(0xffff_ffff_8100_0090), "first+0x90");
        assert_eq!(symbols.name(0xffff_ffff_8100_0100), "second+0x0");
        assert_eq!(symbols.name(0xffff_ffff_8000_0000), "0xffffffff80000000");
        assert_eq!(symbols.name(0xffff_ffff_9000_0000), "0xffffffff90000000");
        assert_eq!(KernelSymbols::default().name(1), "0x1");
    }
}
