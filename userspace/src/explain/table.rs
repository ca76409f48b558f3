//! What each SEAMCALL leaf can answer, what KVM does then, and what of ours may follow: data, and its lookup.
//!
//! One file per part of a TD's life: [`map`], [`zap`], [`life`]; [`host`] for what hands over no page. Every row names its sources: the kernel function
//! (`arch/x86/kvm/vmx/tdx.c` unless a path is given; read in 6.17, 6.18, 6.19, 7.1 and 7.3) and the module's
//! handler (Intel's module source, generations 1.5 and 2.0). Statuses are written as `NAME|OPERAND`.

mod host;
mod life;
mod map;
mod zap;

use septwatch_common::{Leaf, Status, status::Class};

/// A leaf, and all that is known of its failures.
pub struct Row {
    /// The leaf.
    pub leaf: Leaf,
    /// What the leaf is for.
    pub does: &'static str,
    /// Statuses with a meaning of their own at this leaf; [`COMMON`] has those that any leaf may return.
    pub answers: &'static [Answer],
    /// What KVM does. The most specific [`On`] that fits counts.
    pub outcomes: &'static [Outcome],
    /// The module's handler, below `src/vmm_dispatcher/api_calls/` (`tdh_vp_enter.c`: `src/td_transitions/`).
    pub handler: &'static str,
}

/// A status, and when a leaf returns it.
pub struct Answer {
    /// `NAME` or `NAME|OPERAND`, without the `TDX_` prefix.
    pub status: &'static str,
    /// When the module answers so.
    pub means: &'static str,
}

/// Which failures an [`Outcome`] is for, from the most specific on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum On {
    /// This status (written as in [`Answer::status`]).
    Status(&'static str),
    /// `TDX_OPERAND_BUSY` on whatever operand.
    Busy,
    /// Anything but success.
    Failure,
}

/// What KVM does with a failure, on which kernels.
pub struct Outcome {
    /// Which failures.
    pub on: On,
    /// Which kernels, in words; empty for all.
    pub kernels: &'static str,
    /// What KVM does next.
    pub kvm: &'static str,
    /// Our violations that may follow, in the order in which they would.
    pub may_follow: &'static [&'static str],
    /// The kernel function.
    pub source: &'static str,
}

/// Statuses that leaves share. Source: `check_lock_and_map_explicit_tdr()`, `check_state_map_tdcs_and_lock()` and
/// the dispatcher `tdx_vmm_dispatcher.c` of the module; the last three are Linux' own (`asm/tdx.h`).
const COMMON: &[Answer] = &[
    Answer { status: "SUCCESS", means: "the call did what it was asked for" },
    Answer { status: "OPERAND_BUSY|TDR", means: "another CPU holds the lock of the TD's root page, TDR" },
    Answer {
        status: "OPERAND_BUSY|OP_STATE",
        means: "another CPU holds the TD's OP_STATE lock, as finalizing or migrating the TD does",
    },
    Answer {
        status: "TD_FATAL",
        means: "the module gave this TD up after an error it could not contain (a machine check, for instance); \
                only tearing it down is allowed",
    },
    Answer {
        status: "TD_KEYS_NOT_CONFIGURED",
        means: "the TD has no usable key: not configured on every package yet, or torn down already",
    },
    Answer {
        status: "LIFECYCLE_STATE_INCORRECT",
        means: "the TD's life cycle does not allow this leaf now (HKID assigned, keys configured, blocked, teardown)",
    },
    Answer {
        status: "TDCS_NOT_ALLOCATED",
        means: "the TD has not been given all of its control pages (TDCS) yet",
    },
    Answer {
        status: "OP_STATE_INCORRECT",
        means: "the TD's operation state does not allow this leaf (initialized, runnable, migrating)",
    },
    Answer {
        status: "PAGE_METADATA_INCORRECT",
        means: "PAMT says another use for this page than the leaf needs",
    },
    Answer {
        status: "RND_NO_ENTROPY",
        means: "RDRAND or RDSEED gave nothing; Linux repeats the call ten times itself",
    },
    Answer { status: "SYS_BUSY", means: "another CPU holds the module's global lock" },
    Answer {
        status: "SYS_SHUTDOWN",
        means: "the module is shut down, for an update or after a fatal error of its own",
    },
    Answer {
        status: "SEAMCALL_VMFAILINVALID",
        means: "no TDX module is loaded, or it is shut down for good",
    },
    Answer { status: "SEAMCALL_GP", means: "SEAMCALL raised #GP: TDX is not enabled by the firmware" },
    Answer { status: "SEAMCALL_UD", means: "SEAMCALL raised #UD: the CPU is not in VMX operation" },
];

/// Every row, in the order of a TD's life.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    let life = life::BUILD.iter().chain(map::ROWS).chain(host::ENTER).chain(zap::ROWS).chain(life::TEARDOWN);
    life.chain(host::SYSTEM)
}

/// The row of this leaf.
pub fn row(leaf: Leaf) -> Option<&'static Row> {
    rows().find(|row| row.leaf == leaf)
}

impl Row {
    /// What the status means at this leaf, if the leaf can return it. An answer with an operand goes before one
    /// without.
    pub fn answer(&self, status: Status) -> Option<&'static Answer> {
        best(self.answers, status).or_else(|| common(status))
    }

    /// Does the leaf's own table have this status?
    pub fn names(&self, status: Status) -> bool {
        best(self.answers, status).is_some()
    }

    /// What KVM does with this status; empty after a success.
    pub fn outcomes(&self, status: Status) -> impl Iterator<Item = &'static Outcome> {
        let applies = move |outcome: &&Outcome| {
            !status.is_success()
                && match outcome.on {
                    On::Status(spec) => names(spec, status),
                    On::Busy => status.is_busy(),
                    On::Failure => true,
                }
        };
        let first = self.outcomes.iter().filter(applies).map(|outcome| rank(outcome.on)).min();
        self.outcomes.iter().filter(move |outcome| applies(outcome) && Some(rank(outcome.on)) == first)
    }
}

/// What a class means in general, for the statuses that no table has.
pub fn class_means(class: Class) -> Option<&'static str> {
    Some(match class.0 {
        0x01 => "the operand is not one that this call takes",
        0x02 => "something the call needs is in use; it may be repeated",
        0x03 => "the page is not in the state, or of the type or owner, that the call needs (PAMT)",
        0x04 => "something else must be undone first",
        0x05 => "the module is not in a state to do this: not started, or shut down",
        0x06 => "the TD is not in a state to do this",
        0x07 => "the vCPU is not in a state to do this",
        0x08 => "the TD's key or HKID is not in a state to do this",
        0x09 => "a CPU or firmware setting is not as the module needs it",
        0x0a => "a memory range is not one that the module can use",
        0x0b => "the S-EPT is not as the call needs it at this guest address",
        0x0c => "a field of the module's metadata does not exist, or cannot be read or written so",
        0x0d => "a service TD is not bound, or not as expected",
        0x0e => "migration of a TD is not in a state to do this",
        0x0f => "a device of a TD (TDX Connect) is not in a state to do this",
        _ => return None,
    })
}

/// What the status means at any leaf.
pub fn common(status: Status) -> Option<&'static Answer> {
    best(COMMON, status)
}

fn best(answers: &'static [Answer], status: Status) -> Option<&'static Answer> {
    let fits = || answers.iter().filter(|answer| names(answer.status, status));
    fits().find(|answer| answer.status.contains('|')).or_else(|| fits().next())
}

fn rank(on: On) -> u8 {
    match on {
        On::Status(_) => 0,
        On::Busy => 1,
        On::Failure => 2,
    }
}

/// Does `NAME` or `NAME|OPERAND` name this status?
fn names(spec: &str, status: Status) -> bool {
    let (name, operand) = match spec.split_once('|') {
        Some((name, operand)) => (name, Some(operand)),
        None => (spec, None),
    };
    let same_operand = match operand {
        None => true,
        Some(operand) => status.operand().and_then(|known| known.name()) == Some(operand),
    };
    same_operand && status.name().is_some_and(|known| known.strip_prefix("TDX_").unwrap_or(known) == name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

    use super::*;
    use septwatch_common::Violation;

    #[test]
    fn every_status_of_the_tables_exists() {
        let specs = rows().flat_map(|row| {
            let outcomes = row.outcomes.iter().filter_map(|outcome| match outcome.on {
                On::Status(spec) => Some(spec),
                On::Busy | On::Failure => None,
            });
            row.answers.iter().map(|answer| answer.status).chain(outcomes)
        });
        for spec in specs.chain(COMMON.iter().map(|answer| answer.status)) {
            let status = crate::explain::words::parse(spec).unwrap();
            assert!(names(spec, status), "{spec}");
        }
    }

    #[test]
    fn every_violation_is_one_of_ours_and_every_outcome_has_a_source() {
        for row in rows() {
            assert!(row.handler.starts_with("tdh_"), "{}", row.leaf.name());
            for outcome in row.outcomes {
                assert!(outcome.source.contains("()"), "{}: {}", row.leaf.name(), outcome.kvm);
                assert!(
                    outcome.may_follow.iter().all(|name| Violation::from_name(name).is_some()),
                    "{:?}",
                    outcome.may_follow
                );
            }
            assert!(row.outcomes(Status(0xdead_beef_0000_0000)).count() > 0, "{}", row.leaf.name());
            assert_eq!(row.outcomes(Status::SUCCESS).count(), 0);
        }
    }

    #[test]
    fn every_leaf_that_hands_over_or_takes_back_a_page_has_a_row() {
        let without: Vec<_> =
            Leaf::ALL.into_iter().filter(|leaf| row(*leaf).is_none()).map(Leaf::name).collect();
        let others = [
            "TDH.MNG.RD",
            "TDH.PHYMEM.PAGE.RDMD",
            "TDH.VP.RD",
            "TDH.VP.WR",
            "TDH.SYS.SHUTDOWN",
            "TDH.SYS.UPDATE",
            "TDH.SYS.DISABLE",
        ];
        assert_eq!(without, others);
    }

    #[test]
    fn the_most_specific_outcome_counts() {
        let remove = row(Leaf::MemPageRemove).unwrap();
        let busy = Status(0x8000_0200_0000_0092);
        assert!(remove.outcomes(busy).all(|outcome| outcome.on == On::Busy));
        assert!(
            remove.outcomes(Status(0xc000_0b08_0000_0001)).all(|outcome| matches!(outcome.on, On::Status(_)))
        );
        assert!(remove.outcomes(Status(0xc000_0b0d_0000_0001)).all(|outcome| outcome.on == On::Failure));
    }
}
