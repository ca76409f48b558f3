//! What SEAMCALLs answered, leaf by leaf and status by status. A [`crate::model::Model`] does not count that.

use std::collections::{BTreeMap, HashMap};

use septwatch_common::{Leaf, Status, config::Answers, wire::SeamcallErr};

/// Pairs of leaf and status that are told apart; a recording that was made up may hold any number. More are counted
/// under their leaf only.
const PAIRS: usize = 4096;

/// What one leaf answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafAnswers {
    /// Success.
    pub ok: u64,
    /// TDX_OPERAND_BUSY.
    pub busy: u64,
    /// Anything else.
    pub errors: u64,
    /// BUSY and the others by status, without its operand.
    pub statuses: BTreeMap<u64, u64>,
}

impl LeafAnswers {
    /// All calls.
    pub const fn calls(&self) -> u64 {
        self.ok.saturating_add(self.busy).saturating_add(self.errors)
    }
}

/// A leaf of any number: it need not be one of [`Leaf`].
#[derive(Clone, Debug)]
pub struct Counting {
    leaves: Vec<[u64; 3]>,
    statuses: HashMap<(u8, u64), u64>,
}

impl Default for Counting {
    fn default() -> Self {
        Self { leaves: vec![[0; 3]; 256], statuses: HashMap::new() }
    }
}

impl Counting {
    /// Counts a call in.
    #[inline]
    pub fn call(&mut self, call: &SeamcallErr) {
        let status = Status(call.status);
        let answer = if status.is_success() { 0 } else { 1 + usize::from(!status.is_busy()) };
        self.leaves[usize::from(call.call.leaf)][answer] += 1;
        if answer != 0 {
            self.failed(call.call.leaf, status.without_operand().0);
        }
    }

    #[cold]
    fn failed(&mut self, leaf: u8, status: u64) {
        let is_full = self.statuses.len() >= PAIRS;
        match self.statuses.entry((leaf, status)) {
            std::collections::hash_map::Entry::Vacant(_) if is_full => {}
            entry => *entry.or_default() += 1,
        }
    }

    /// What each leaf answered that was called. Numbers that are no leaf's are left out.
    pub fn finish(self) -> BTreeMap<Leaf, LeafAnswers> {
        let mut leaves = BTreeMap::new();
        for (number, [ok, busy, errors]) in (0..).zip(self.leaves).filter(|(_, counts)| *counts != [0; 3]) {
            if let Some(leaf) = Leaf::from_number(number) {
                leaves.insert(leaf, LeafAnswers { ok, busy, errors, statuses: BTreeMap::new() });
            }
        }
        for ((leaf, status), count) in self.statuses {
            let leaf = Leaf::from_number(u64::from(leaf)).and_then(|leaf| leaves.get_mut(&leaf));
            if let Some(leaf) = leaf {
                leaf.statuses.insert(status, count);
            }
        }
        leaves
    }
}

/// What the kernel side counted, where the calls themselves were not recorded.
pub fn counted(calls: &[Answers]) -> BTreeMap<Leaf, LeafAnswers> {
    let called = (0..).zip(calls).filter(|(_, Answers { ok, busy, error })| [*ok, *busy, *error] != [0; 3]);
    called
        .filter_map(|(number, Answers { ok, busy, error })| {
            let answers = LeafAnswers { ok: *ok, busy: *busy, errors: *error, statuses: BTreeMap::new() };
            Some((Leaf::from_number(number)?, answers))
        })
        .collect()
}
