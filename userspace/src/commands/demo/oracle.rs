//! What septwatch should have found, from what the demo knows that it did: the frames from pagemap, the state from the
//! module's own books. Nothing in here looks at events.

use std::collections::BTreeMap;

use septwatch_common::{Leaf, Violation};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    model::verdict::Verdict,
    source::demo::{
        module::{Frame, PageKind, status},
        scenarios::Acted,
        vmm::{Truth, What},
    },
};

/// By what an expectation and a finding are recognised as the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Name of the violation.
    #[serde(serialize_with = "name", deserialize_with = "named")]
    pub violation: Violation,
    /// Frame of the TD's TDR.
    pub tdr_pfn: u64,
    /// The frame, where septwatch can know it.
    pub pfn: Option<u64>,
    /// The guest frame.
    pub gfn: Option<u64>,
}

fn name<S: serde::Serializer>(violation: &Violation, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(violation.name())
}

fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Violation, D::Error> {
    let name = String::deserialize(deserializer)?;
    Violation::from_name(&name).ok_or_else(|| D::Error::custom(format!("no violation is called {name}")))
}

/// What was caused, as far as findings are held against it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caused {
    /// What must be found.
    pub keys: Vec<Key>,
    /// Frames that were freed too early: who is given one then is not the demo's to say.
    pub freed_early: Vec<u64>,
    /// Frames of which the scenario itself knows that they were reused.
    pub reused: Vec<u64>,
}

impl Caused {
    /// By what was acted out.
    pub fn of(acted: &Acted) -> Self {
        let freed_early = acted.truths.iter().filter_map(|truth| match truth.what {
            What::Freed { pfn, state, .. } if state != Frame::Free => Some(pfn),
            _ => None,
        });
        Self {
            keys: acted.truths.iter().filter_map(expected).collect(),
            freed_early: freed_early.collect(),
            reused: acted.reused.iter().map(|reused| reused.pfn).collect(),
        }
    }
}

/// A row of the table: one kind of violation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name of the violation.
    pub violation: &'static str,
    /// How many the demo caused.
    pub expected: u64,
    /// How many septwatch found.
    pub found: u64,
    /// How many the programs in the kernel counted, whether or not their records arrived.
    pub counted: u64,
    /// Found of them that are what the host made of a frame that was freed too early: who is given it, and when, is
    /// not the demo's to say.
    pub consequences: u64,
}

/// Expected against found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Kinds of violations that were expected or found.
    pub rows: Vec<Row>,
    /// Caused, and not found.
    pub missing: Vec<Key>,
    /// Found, and not caused.
    pub unexpected: Vec<Key>,
}

impl Comparison {
    /// Whether everything that was caused was found, and nothing else.
    pub fn is_equal(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty()
    }

    /// Violations whose records did not arrive.
    pub fn lost(&self) -> u64 {
        self.rows.iter().map(|row| row.counted.saturating_sub(row.found)).sum()
    }
}

/// What must be found of a truth.
fn expected(truth: &Truth) -> Option<Key> {
    use Violation::{
        DoubleMap, FreedUnflushed, FreedWhileBlocked, FreedWhileMapped, FreedWhileOwned, MapFailed,
        OutOfOrder, TeardownLeak, ZapFailed,
    };
    let key = |violation, pfn, gfn| Some(Key { violation, tdr_pfn: truth.td.tdr, pfn, gfn });
    match truth.what {
        What::Freed { pfn, gfn, state, .. } => match state {
            Frame::Free => None,
            Frame::Unflushed { .. } => key(FreedUnflushed, Some(pfn), gfn),
            Frame::Owned(owned) if owned.kind != PageKind::Leaf => key(FreedWhileOwned, Some(pfn), gfn),
            Frame::Owned(owned) if owned.state.is_some_and(|state| state.is_blocked()) => {
                key(FreedWhileBlocked, Some(pfn), gfn)
            }
            Frame::Owned(_) => key(FreedWhileMapped, Some(pfn), gfn),
        },
        // WBINVD alone names a frame.
        What::ZapFailed { gfn, pfn, failed, .. } => {
            key(ZapFailed, (failed.leaf == Leaf::PhymemPageWbinvd).then_some(pfn), Some(gfn))
        }
        What::MapFailed { gfn, pfn, failed, .. } => {
            if status::is_busy(failed.status) {
                None
            } else {
                key(MapFailed, Some(pfn), Some(gfn))
            }
        }
        What::DoubleMap { pfn, gfn, .. } => key(DoubleMap, Some(pfn), Some(gfn)),
        What::OutOfOrder { gfn, pfn, status, .. } => {
            if status == 0 {
                key(OutOfOrder, Some(pfn), Some(gfn))
            } else {
                None
            }
        }
        // A page of which nothing was asked is counted with the TDR, which cannot be reclaimed for it.
        What::Leaked { pfn, failed, .. } => failed.and_then(|_| key(TeardownLeak, Some(pfn), None)),
    }
}

/// Holds the verdicts against what the demo caused. `counted` is what the kernel side counted, by number.
pub fn compare(caused: &Caused, verdicts: &[Verdict], counted: [u64; Violation::ALL.len()]) -> Comparison {
    let mut open: BTreeMap<Key, u64> = BTreeMap::new();
    let mut rows: BTreeMap<Violation, Row> = BTreeMap::new();
    fn row(rows: &mut BTreeMap<Violation, Row>, violation: Violation) -> &mut Row {
        rows.entry(violation).or_insert_with(|| Row {
            violation: violation.name(),
            expected: 0,
            found: 0,
            counted: 0,
            consequences: 0,
        })
    }
    for key in &caused.keys {
        row(&mut rows, key.violation).expected += 1;
        *open.entry(key.clone()).or_default() += 1;
    }
    let freed_early = |pfn| caused.freed_early.contains(&pfn);
    let mut reused = caused.reused.clone();
    let expected_reuses = reused.len() as u64;
    if expected_reuses != 0 {
        row(&mut rows, Violation::ReusedWhileMapped).expected = expected_reuses;
    }
    let mut unexpected = Vec::new();
    for verdict in verdicts {
        let row = row(&mut rows, verdict.violation);
        row.found += 1;
        if verdict.violation == Violation::ReusedWhileMapped {
            match reused.iter().position(|reused| Some(*reused) == verdict.pfn) {
                Some(at) => {
                    reused.remove(at);
                    continue;
                }
                None if verdict.pfn.is_some_and(freed_early) => {
                    row.consequences += 1;
                    continue;
                }
                None => {}
            }
        }
        let key = key_of(verdict);
        match open.get_mut(&key) {
            Some(count) if *count > 0 => *count -= 1,
            _ => unexpected.push(key),
        }
    }
    for (violation, counted) in Violation::ALL.into_iter().zip(counted).filter(|(_, counted)| *counted != 0) {
        row(&mut rows, violation).counted = counted;
    }
    let mut missing: Vec<_> =
        open.into_iter().flat_map(|(key, count)| std::iter::repeat_n(key, count as usize)).collect();
    missing.extend(reused.into_iter().map(|pfn| Key {
        violation: Violation::ReusedWhileMapped,
        tdr_pfn: 0,
        pfn: Some(pfn),
        gfn: None,
    }));
    Comparison { rows: rows.into_values().collect(), missing, unexpected }
}

fn key_of(verdict: &Verdict) -> Key {
    // Steps that fail before WBINVD name no frame.
    Key {
        violation: verdict.violation,
        tdr_pfn: verdict.tdr.unwrap_or(0),
        pfn: verdict.pfn,
        gfn: verdict.gfn,
    }
}
