//! Attaching the programs, in the order that their work asks for: what sees frames come back before what lends them.

use aya::Btf;
use septwatch_common::{Leaf, config::HOOKED};

use super::{Kernel, KernelError};
use crate::hooks::{
    ahead,
    attach::{self, AttachError},
    load::LoadError,
    pins::Note,
    plan::{Binding, Plan},
    points::POINT_HOOKS,
    reactions::Needs,
};

impl Kernel {
    /// Attaches the programs that see frames come back: before anything that lends frames is attached.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn attach_releases(&mut self) -> Result<(), KernelError> {
        self.needed().releases()
    }

    /// Attaches the programs that a policy needs beside those of the ledger: after [`Self::attach_releases`], before
    /// [`Self::attach_functions`]. One that cannot be attached is handed to `without`, by the reaction's name.
    ///
    /// # Errors
    /// There is no object to attach them from.
    pub fn attach_reactions(
        &mut self,
        plan: &Plan,
        needs: Needs,
        mut without: impl FnMut(&'static str, AttachError),
    ) -> Result<(), KernelError> {
        let Self { relocated, attached, .. } = self;
        let relocated = relocated.as_ref().ok_or(LoadError::Missing("programs"))?;
        if needs.panic
            && let Err(error) = attached.crash(relocated, plan)
        {
            without("panic", error);
        }
        if needs.hold
            && let Err(error) = attached.refuse_fallocate(relocated, plan)
        {
            without("hold", error);
        }
        if needs.cordon
            && let Err(error) = attached.refuse_create_vm(relocated, plan)
        {
            without("cordon", error);
        }
        Ok(())
    }

    /// Attaches the hooks of a plan at functions of the kernel, with `latency` those that take the time of SEAMCALLs as
    /// well. One that cannot be attached though it was planned, and
    /// without which verdicts say less but nothing false, is handed to `without`.
    ///
    /// # Errors
    /// The kernel refuses one that every verdict needs.
    pub fn attach_functions(
        &mut self,
        plan: &Plan,
        btf: &Btf,
        latency: bool,
        mut without: impl FnMut(&'static str, AttachError),
    ) -> Result<usize, KernelError> {
        let Self { ebpf, relocated, attached, .. } = self;
        let (Some(ebpf), Some(relocated)) = (ebpf.as_mut(), relocated.take()) else {
            return Err(LoadError::Missing("programs").into());
        };
        let mut count = 0;
        // KVM's own functions first: what they tell is for what the SEAMCALLs then find.
        for spec in &POINT_HOOKS {
            let Some(bound) = plan.hook(spec.hook).and_then(|hook| hook.bound()) else { continue };
            match attached.point(ebpf, &relocated, spec, bound) {
                Ok(()) => count += 1,
                Err(error) => without(spec.hook, error),
            }
        }
        let hooks = HOOKED.iter().filter_map(|leaf| plan.hook(attach::function(*leaf)?)?.bound());
        let hooks: Vec<_> = hooks.collect();
        let by_fexit = hooks.iter().filter(|bound| bound.binding != Binding::Kprobe);
        let by_fexit: Vec<_> = by_fexit.map(|bound| bound.function.as_str()).collect();
        ahead::load(ebpf, &by_fexit, Some(btf));
        for bound in hooks {
            match bound.binding {
                Binding::Kprobe => attached.kprobe(ebpf, &bound.function)?,
                _ => {
                    attached.fexit(ebpf, &bound.function, btf)?;
                    if latency {
                        attached.entry_time(&relocated, bound)?;
                    }
                }
            }
            count += 1;
        }
        Ok(count)
    }

    /// Puts the programs that walk TDs into the kernel.
    ///
    /// # Errors
    /// The kernel refuses one: what runs already cannot be taken over, and nothing else is lost.
    pub fn load_walk(&mut self, btf: &Btf) -> Result<(), AttachError> {
        match self.ebpf.as_mut() {
            Some(ebpf) => self.attached.load_walk(ebpf, btf),
            None => Err(AttachError::Missing(attach::WALK_FIND.to_owned())),
        }
    }

    /// Attaches to functions of this process.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn attach_own(&mut self, functions: &[(Leaf, u64)]) -> Result<(), KernelError> {
        let ebpf = self.ebpf.as_mut().ok_or(LoadError::Missing("programs"))?;
        Ok(self.attached.own_functions(ebpf, functions)?)
    }

    /// Everything is attached: from now on another process can take over, if this one dies.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn complete(&self, note: &Note) -> Result<(), KernelError> {
        match self.attached.pins() {
            Some(pins) => Ok(pins.complete(note).map_err(AttachError::from)?),
            None => Ok(()),
        }
    }
}
