//! A policy on a running host, for the commands that may follow one: its flags, and what is settled before anything is
//! attached.

mod guard;
mod side;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Result, bail};

use super::BadInput;
use crate::{
    hooks::{means::Means, plan::Plan, reactions::Needs},
    policy::{
        audit,
        explain::{Gap, gaps},
        file::Policy,
        reaction::Reaction,
    },
    source::open::{self, Options},
};

pub use guard::Guard;

/// Flags of the commands that may follow a policy.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Policing {
    /// React to violations by this policy: the name of a shipped one (`septwatch policy list`), or a file. Without it
    /// nothing is reacted to.
    #[arg(long, value_name = "NAME|FILE")]
    pub policy: Option<String>,
    /// Arm the policy, if it says `armed = true`: without it, or `septwatch policy arm` later, it is a dry run that says
    /// what it would do.
    #[arg(long, requires = "policy")]
    pub arm: bool,
    /// Follow a policy of which this kernel cannot carry out everything: what it cannot is told, and shown by
    /// `septwatch policy status`. Without it such a policy is refused.
    #[arg(long, requires = "policy")]
    pub allow_degraded: bool,
    /// Folder of the audit log.
    #[arg(long, value_name = "DIR", requires = "policy", default_value = audit::FOLDER)]
    pub audit: PathBuf,
}

/// A policy that can be followed here.
pub struct Prepared {
    policy: Arc<Policy>,
    /// Where it came from: to be read again.
    from: String,
    means: Means,
    gaps: Vec<Gap>,
    flags: Policing,
}

impl Policing {
    /// Reads the policy, and makes sure that this kernel can carry it out. The kernel's plan comes with it.
    ///
    /// # Errors
    /// The file is wrong, or the kernel cannot do what it asks for and `--allow-degraded` was not given.
    pub fn prepare(&self, options: &Options) -> Result<Option<(Prepared, Plan)>> {
        let Some(from) = &self.policy else { return Ok(None) };
        let (plan, host) = open::plan_and_host(options)?;
        let prepared = Prepared::read(from, Means::of(&plan, Some(&host)), self)?;
        Ok(Some((prepared, plan)))
    }
}

impl Prepared {
    /// The same for means that are known.
    ///
    /// # Errors
    /// As for [`Policing::prepare`].
    pub fn read(from: &str, means: Means, flags: &Policing) -> Result<Self> {
        let policy = Policy::find(from).map_err(|error| BadInput(format!("--policy: {error}")))?;
        let gaps = gaps(&policy, &means);
        if !gaps.is_empty() && !flags.allow_degraded {
            let gaps: Vec<_> = gaps.iter().map(|gap| format!("\n  {gap}")).collect();
            bail!(
                "this kernel cannot carry out the policy {}:{}\n  --allow-degraded follows it without",
                policy.name,
                gaps.concat()
            );
        }
        Ok(Self { policy: Arc::new(policy), from: from.to_owned(), means, gaps, flags: flags.clone() })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The first reaction of the policy that is none of these.
    pub fn other_than(&self, names: &[&str]) -> Option<(&str, &'static str)> {
        let steps =
            self.policy.rules.iter().flat_map(|rule| rule.ladder.iter().map(move |step| (rule, step)));
        let mut steps = steps.map(|(rule, step)| (rule.name.as_str(), step.reaction.name()));
        steps.find(|(_, reaction)| !names.contains(reaction))
    }

    /// The programs that it needs, of those that the kernel lets be attached.
    pub fn needs(&self) -> Needs {
        needs(&self.policy, &self.means)
    }
}

fn needs(policy: &Policy, means: &Means) -> Needs {
    let mut needs = Needs::default();
    for step in policy.rules.iter().flat_map(|rule| &rule.ladder) {
        match step.reaction {
            Reaction::Hold(_) => needs.hold |= means.refuse_fallocate.usable(),
            Reaction::Cordon(_) => needs.cordon |= means.refuse_create_vm.usable(),
            Reaction::Panic => needs.panic |= means.crash_kexec.usable(),
            _ => {}
        }
    }
    needs
}
