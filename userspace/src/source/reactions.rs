//! The kernel side of reactions: the rules that the programs follow, and what they have done by them.

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use septwatch_common::react::{Cordon, Cordoned, CrashNote, Held, QUICK_RULES, QuickRule, TdRules};

use super::kernel::{KernelError, map_error, typed};

macro_rules! pods {
    ($($pod:ident($of:ident)),*) => {$(
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $pod($of);
        // SAFETY: numbers only, without padding.
        unsafe impl Pod for $pod {}
    )*};
}

pods!(RulePod(QuickRule), HeldPod(Held), CrashPod(CrashNote), CordonPod(Cordon), CordonedPod(Cordoned));

/// The maps of reactions.
pub struct Reactions {
    rules: Array<MapData, RulePod>,
    chosen: HashMap<MapData, u64, TdRules>,
    held: HashMap<MapData, u64, HeldPod>,
    crash: Array<MapData, CrashPod>,
    cordon: Array<MapData, CordonPod>,
    cordoned: Array<MapData, CordonedPod>,
}

/// What was asked to be removed may be gone.
fn gone_is_well(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl Reactions {
    pub(super) fn of(map: &mut impl FnMut(&str) -> Option<Map>) -> Result<Self, KernelError> {
        Ok(Self {
            rules: typed("QUICK", map("QUICK"))?,
            chosen: typed("TD_RULES", map("TD_RULES"))?,
            held: typed("HELD", map("HELD"))?,
            crash: typed("CRASH", map("CRASH"))?,
            cordon: typed("CORDON", map("CORDON"))?,
            cordoned: typed("CORDONED", map("CORDONED"))?,
        })
    }

    /// Writes rules, and returns how many there are. Of more than [`QUICK_RULES`], the first.
    pub(super) fn rules(&mut self, rules: &[QuickRule]) -> Result<u64, KernelError> {
        let count = QUICK_RULES.min(rules.len() as u32);
        for (place, rule) in (0..count).zip(rules) {
            self.rules.set(place, RulePod(*rule), 0).map_err(map_error("QUICK"))?;
        }
        Ok(u64::from(count))
    }

    /// Which rules that choose TDs this one is chosen for, by bits of the rules' places.
    ///
    /// # Errors
    /// The map cannot be written, or is full.
    pub fn choose(&mut self, td: u32, rules: TdRules) -> Result<(), KernelError> {
        self.chosen.insert(u64::from(td), rules, 0).map_err(map_error("TD_RULES"))
    }

    /// A TD is gone.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn forget(&mut self, td: u32) -> Result<(), KernelError> {
        gone_is_well(self.chosen.remove(&u64::from(td))).map_err(map_error("TD_RULES"))
    }

    /// The TDs that are held, or were until they were released (their errno is 0), by their numbers.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn all_held(&self) -> Result<Vec<(u32, Held)>, KernelError> {
        let all = self.held.iter().map(|entry| entry.map(|(td, HeldPod(held))| (td as u32, held)));
        all.collect::<Result<_, _>>().map_err(map_error("HELD"))
    }

    /// The TDs whose guest_memfd give back no page, by number.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn in_force(&self) -> Result<Vec<(u32, Held)>, KernelError> {
        let all = self.all_held()?.into_iter();
        Ok(all.filter(|(_, held)| held.errno != 0).collect())
    }

    /// Whether and how a TD is held.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn held(&self, td: u32) -> Result<Option<Held>, KernelError> {
        match self.held.get(&u64::from(td), 0) {
            Ok(HeldPod(held)) => Ok(Some(held)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(map_error("HELD")(error)),
        }
    }

    /// Holds a TD, if it is not held already.
    ///
    /// # Errors
    /// The map cannot be written, or is full.
    pub fn hold(&mut self, td: u32, held: Held) -> Result<(), KernelError> {
        const BPF_NOEXIST: u64 = 1;
        match self.held.insert(u64::from(td), HeldPod(held), BPF_NOEXIST) {
            // A program was quicker.
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            result => result.map_err(map_error("HELD")),
        }
    }

    /// Holds a TD no more. That it was held stays known: the programs do not hold it again for what its release brings to
    /// light.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn release(&mut self, td: u32) -> Result<(), KernelError> {
        let Some(held) = self.held(td)? else { return Ok(()) };
        self.held.insert(u64::from(td), HeldPod(Held { errno: 0, ..held }), 0).map_err(map_error("HELD"))
    }

    /// Refuses new VMs, or welcomes them again with errno 0.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn cordon(&mut self, cordon: Cordon) -> Result<(), KernelError> {
        self.cordon.set(0, CordonPod(cordon), 0).map_err(map_error("CORDON"))
    }

    /// What is refused now.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn cordoning(&self) -> Result<Cordon, KernelError> {
        Ok(self.cordon.get(&0, 0).map_err(map_error("CORDON"))?.0)
    }

    /// What was refused so far.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn cordoned(&self) -> Result<Cordoned, KernelError> {
        Ok(self.cordoned.get(&0, 0).map_err(map_error("CORDONED"))?.0)
    }

    /// Forgets that the programs wanted the host to go down, where no crash kernel was loaded: one that is loaded later is
    /// not to start for it.
    pub(super) fn forget_crash(&mut self) -> Result<(), KernelError> {
        self.crash.set(0, CrashPod(CrashNote::NONE), 0).map_err(map_error("CRASH"))
    }
}
