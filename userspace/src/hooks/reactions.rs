//! The programs of reactions, attached where a policy may need them. What they do is decided by maps: until those say
//! something they do nothing, and cost what it costs to be asked.

use std::os::fd::AsFd as _;

use aya_obj::generated::{bpf_attach_type, bpf_insn};
use septwatch_common::react::CRASH_KEXEC;
use serde::{Deserialize, Serialize};

use super::{
    attach::{AttachError, Attached, module_of},
    bpf::Tracing,
    plan::{Binding, Bound, Plan},
    relocated::{Code, Relocated},
};

/// Which programs a policy needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// fallocate on a guest_memfd is to be refused.
    pub hold: bool,
    /// KVM_CREATE_VM is to be refused.
    pub cordon: bool,
    /// The host is to go down from within the kernel.
    pub panic: bool,
}

impl Needs {
    /// Whether whoever has this has all that `wanted` asks for.
    pub const fn cover(self, wanted: Self) -> bool {
        (self.hold || !wanted.hold) && (self.cordon || !wanted.cordon) && (self.panic || !wanted.panic)
    }
}

/// The hook whose tracepoint every frame passes on its way back to the allocator.
const RELEASE: &str = "mm_page_free";

impl Attached {
    /// Attaches the programs that start the crash kernel: at the allocator's tracepoint behind those of the ledger, which
    /// must be attached by now; and at functions, of which the kernel runs the programs that were attached last first, so
    /// that those of the ledger must not be attached yet.
    ///
    /// # Errors
    /// The kernel refuses one at the tracepoint. Without one at a function, the next frame that anybody frees does it.
    pub fn crash(&mut self, relocated: &Relocated, plan: &Plan) -> Result<(), AttachError> {
        let missing = || AttachError::Missing("crash_kexec".to_owned());
        let kfunc = plan.targets.crash_kexec.ok_or_else(missing)?;
        let release = plan.hook(RELEASE).and_then(|hook| hook.bound()).ok_or_else(missing)?;
        self.one_crash(relocated, "crash_tp_btf", bpf_attach_type::BPF_TRACE_RAW_TP, kfunc, release)?;
        for hook in &plan.hooks {
            let (name, attach_type) = match hook.name {
                name if name.starts_with("tdh_") => ("crash_fexit", bpf_attach_type::BPF_TRACE_FEXIT),
                // The function of KVM's at whose entry a violation is found.
                "kvm_make_all_cpus_request" => ("crash_fentry", bpf_attach_type::BPF_TRACE_FENTRY),
                _ => continue,
            };
            if let Some(bound) = hook.bound().filter(|bound| bound.binding == Binding::Fexit) {
                self.one_crash(relocated, name, attach_type, kfunc, bound)?;
            }
        }
        Ok(())
    }

    fn one_crash(
        &mut self,
        relocated: &Relocated,
        name: &'static str,
        attach_type: bpf_attach_type,
        kfunc: u32,
        bound: &Bound,
    ) -> Result<(), AttachError> {
        let Code { instructions, license, types } =
            relocated.program(name).ok_or_else(|| AttachError::Missing(name.to_owned()))?;
        let instructions = &calling(instructions, kfunc)[..];
        let module = module_of(bound)?;
        let (module, function) = (module.as_ref().map(|module| module.as_fd()), bound.btf_id);
        let program = Tracing { name, instructions, license, types, attach_type, module, function };
        self.load_and_attach(&program, &format!("crash-{}", bound.function), &bound.function)
    }

    /// Attaches the program that refuses fallocate on a guest_memfd whose TD is held.
    ///
    /// # Errors
    /// The kernel has no such security hook, or refuses the program.
    pub fn refuse_fallocate(&mut self, relocated: &Relocated, plan: &Plan) -> Result<(), AttachError> {
        self.security(relocated, "file_permission", plan.targets.file_permission)
    }

    /// Attaches the programs that refuse KVM_CREATE_VM.
    ///
    /// # Errors
    /// As for [`Self::refuse_fallocate`].
    pub fn refuse_create_vm(&mut self, relocated: &Relocated, plan: &Plan) -> Result<(), AttachError> {
        self.security(relocated, "file_ioctl", plan.targets.file_ioctl)?;
        match plan.targets.file_ioctl_compat {
            // Before Linux 6.8 both kinds of calls come to the one above.
            None => Ok(()),
            compat => self.security(relocated, "file_ioctl_compat", compat),
        }
    }

    fn security(&mut self, relocated: &Relocated, name: &str, hook: Option<u32>) -> Result<(), AttachError> {
        let missing = || AttachError::Missing(name.to_owned());
        let Code { instructions, license, types } = relocated.program(name).ok_or_else(missing)?;
        let function = hook.ok_or_else(missing)?;
        let attach_type = bpf_attach_type::BPF_LSM_MAC;
        let program = Tracing { name, instructions, license, types, attach_type, module: None, function };
        self.load_and_attach(&program, &format!("lsm-{name}"), name)
    }
}

/// The same instructions, in which the call of [`CRASH_KEXEC`] is one of this kfunc of vmlinux.
fn calling(instructions: &[bpf_insn], kfunc: u32) -> Vec<bpf_insn> {
    /// `BPF_JMP | BPF_CALL`, and the kind of call that kfuncs have (include/uapi/linux/bpf.h).
    const CALL: u8 = 0x85;
    const BPF_PSEUDO_KFUNC_CALL: u8 = 2;
    let mut instructions = instructions.to_vec();
    for instruction in &mut instructions {
        if instruction.code == CALL && instruction.src_reg() == 0 && instruction.imm == CRASH_KEXEC as i32 {
            instruction.set_src_reg(BPF_PSEUDO_KFUNC_CALL);
            instruction.imm = kfunc as i32;
        }
    }
    instructions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_covered_one_by_one() {
        let hold = Needs { hold: true, ..Needs::default() };
        assert!(hold.cover(Needs::default()) && hold.cover(hold));
        assert!(!Needs::default().cover(hold));
        assert!(!hold.cover(Needs { cordon: true, ..hold }));
        assert!(!hold.cover(Needs { panic: true, ..hold }));
    }
}
