//! Single pages of the host.

use super::{Memory, MemoryError};

/// One page of the host, present and in a known frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPage {
    index: usize,
    /// Its frame.
    pub pfn: u64,
}

/// Single pages of the host: what KVM gets from its allocator for control pages and S-EPT pages.
#[derive(Debug)]
pub struct HostPages {
    memory: Memory,
    unused: Vec<usize>,
}

impl HostPages {
    /// Room for this many pages.
    pub fn new(pages: usize) -> Result<Self, MemoryError> {
        Ok(Self { memory: Memory::new(pages)?, unused: (0..pages).rev().collect() })
    }

    /// A new page.
    pub fn get(&mut self) -> Result<HostPage, MemoryError> {
        let index = self.unused.pop().ok_or(MemoryError::Full(self.memory.pages()))?;
        match self.memory.touch(index) {
            Ok(pfn) => Ok(HostPage { index, pfn }),
            Err(error) => {
                self.unused.push(index);
                Err(error)
            }
        }
    }

    /// Checks that the page is still in its frame.
    pub fn verify(&self, page: HostPage) -> Result<(), MemoryError> {
        self.memory.verify(page.index, page.pfn)
    }

    /// Frees a page: exactly its frame goes back to the page allocator before this returns.
    pub fn free(&mut self, page: HostPage) -> Result<(), MemoryError> {
        self.verify(page)?;
        self.memory.punch(page.index, 1)?;
        self.unused.push(page.index);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test ends there")]
mod tests {
    use super::super::tests::skipped;
    use super::*;

    #[test]
    fn host_pages_are_single_and_run_out_with_an_error() {
        if skipped() {
            return;
        }
        let mut pages = HostPages::new(2).unwrap();
        let (first, second) = (pages.get().unwrap(), pages.get().unwrap());
        assert_ne!(first.pfn, second.pfn);
        assert!(matches!(pages.get(), Err(MemoryError::Full(2))));
        pages.free(first).unwrap();
        assert!(matches!(pages.free(first), Err(MemoryError::Moved { .. })));
        pages.verify(second).unwrap();
        assert!(pages.get().is_ok());
    }
}
