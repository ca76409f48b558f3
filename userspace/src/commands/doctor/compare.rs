//! Several kernels side by side: what every one of them has, and what differs between them.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::Report;
use crate::hooks::{
    btf::BtfError,
    plan::{Plan, State},
};

/// Plans for kernels that are not running.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Each with its plan.
    pub kernels: Vec<Report>,
    /// Hooks and offsets that are the same on all of them.
    pub same: Vec<&'static str>,
    /// Those that are not.
    pub different: Vec<Difference>,
}

/// A hook or an offset that is not the same on all kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name.
    pub name: &'static str,
    /// What it is, and on which kernels, in their order.
    pub variants: Vec<Variant>,
}

/// What a hook or an offset is on some kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Variant {
    /// The folders that their BTF came from.
    pub kernels: Vec<PathBuf>,
    /// How the hook is bound or why it is missing; the offset in bytes, or `none`.
    pub what: String,
}

impl Comparison {
    /// Plans for all of them.
    ///
    /// # Errors
    /// A folder has no sound BTF of vmlinux.
    pub fn of(dirs: &[PathBuf]) -> Result<Self, BtfError> {
        let kernels = dirs.iter().map(|dir| Report::of_btf(dir)).collect::<Result<Vec<_>, _>>()?;
        let mut all: Vec<Difference> = Vec::new();
        for kernel in &kernels {
            for (name, what) in kernel.plan.iter().flat_map(entries) {
                let at = match all.iter().position(|known| known.name == name) {
                    Some(at) => at,
                    None => {
                        all.push(Difference { name, variants: Vec::new() });
                        all.len() - 1
                    }
                };
                let variants = &mut all[at].variants;
                let dir = kernel.btf.dir.clone();
                match variants.iter_mut().find(|variant| variant.what == what) {
                    Some(variant) => variant.kernels.push(dir),
                    None => variants.push(Variant { kernels: vec![dir], what }),
                }
            }
        }
        let (same, different): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|difference| difference.variants.len() == 1);
        Ok(Self { kernels, same: same.into_iter().map(|same| same.name).collect(), different })
    }

    /// Whether TDs can be watched on every one of them.
    pub fn can_watch(&self) -> bool {
        self.kernels.iter().all(|kernel| kernel.verdict.can_watch)
    }
}

fn entries(plan: &Plan) -> Vec<(&'static str, String)> {
    let hooks = plan.hooks.iter().map(|hook| {
        let what = match &hook.state {
            State::Bound(bound) => bound.to_string(),
            State::Missing { reason } => format!("missing: {reason}"),
        };
        (hook.name, what)
    });
    let offsets = plan.offsets.list().into_iter();
    let offsets = offsets
        .map(|(name, value)| (name, value.map_or("none".to_owned(), |value| format!("offset {value}"))));
    hooks.chain(offsets).collect()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kernel in &self.kernels {
            writeln!(f, "{}", kernel.btf.dir.display())?;
            writeln!(f, "  {}", kernel.verdict.line)?;
        }
        writeln!(f, "the same on all: {} of {}", self.same.len(), self.same.len() + self.different.len())?;
        for names in self.same.chunks(4) {
            writeln!(f, "  {}", names.join("  "))?;
        }
        writeln!(f, "different: {}", self.different.len())?;
        for difference in &self.different {
            writeln!(f, "  {}", difference.name)?;
            for Variant { kernels, what } in &difference.variants {
                let names: Vec<_> = kernels
                    .iter()
                    .map(|dir| dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy())
                    .collect();
                writeln!(f, "    {:<24} {what}", names.join(" "))?;
            }
        }
        Ok(())
    }
}
