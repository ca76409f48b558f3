//! The hooks at KVM's own functions and the programs that belong to each: what is found in BTF, as those programs take
//! it.

use septwatch_common::{
    config::NO_ARGUMENT,
    kvm::{POINTS, Point, PointArgs},
};

use super::{
    plan::Plan,
    shape::{PageUnit, Role},
};

/// A hook at a function of KVM.
#[derive(Debug)]
pub struct PointSpec {
    /// The hook's name, as in [`super::table::HOOKS`].
    pub hook: &'static str,
    /// The same for the programs.
    pub point: Point,
    /// The arguments that the programs read, in their order; of several for one place, the first that is there.
    roles: &'static [&'static [Role]],
    /// Stem of the names of the programs at its entry.
    pub entry: Option<&'static str>,
    /// Stem of the names of the programs at its return.
    pub at_return: Option<&'static str>,
}

use Role::{
    FallocMode, File, Folio, Gfn, Gmem, Inode, Kvm, Level, MirrorSpte, OldSpte, Page, Request, VmFault,
};

/// All of them.
pub const POINT_HOOKS: [PointSpec; POINTS] = [
    PointSpec {
        hook: "kvm_make_all_cpus_request",
        point: Point::MakeAllCpusRequest,
        roles: &[&[Kvm], &[Request]],
        entry: Some("making_request"),
        at_return: Some("made_request"),
    },
    PointSpec {
        hook: "tdx_vm_destroy",
        point: Point::VmDestroy,
        roles: &[&[Kvm]],
        entry: Some("destroying"),
        at_return: None,
    },
    PointSpec {
        hook: "tdx_sept_remove_private_spte",
        point: Point::Zap,
        roles: &[&[Kvm], &[Gfn], &[Page, MirrorSpte, OldSpte], &[Level]],
        entry: Some("zapping"),
        at_return: Some("zapped"),
    },
    PointSpec {
        hook: "kvm_gmem_fallocate",
        point: Point::Fallocate,
        roles: &[&[File], &[FallocMode]],
        entry: Some("allocating"),
        at_return: Some("allocated"),
    },
    PointSpec {
        hook: "kvm_gmem_release",
        point: Point::Release,
        roles: &[&[Inode]],
        entry: Some("releasing"),
        at_return: None,
    },
    PointSpec {
        hook: "kvm_gmem_invalidate",
        point: Point::Invalidate,
        roles: &[&[Gmem]],
        entry: Some("invalidating"),
        at_return: Some("invalidated"),
    },
    PointSpec {
        hook: "kvm_gmem_error_folio",
        point: Point::ErrorFolio,
        roles: &[&[Folio]],
        entry: None,
        at_return: Some("failed"),
    },
    PointSpec {
        hook: "kvm_gmem_fault_user_mapping",
        point: Point::FaultUserMapping,
        roles: &[&[VmFault]],
        entry: None,
        at_return: Some("faulted"),
    },
    PointSpec {
        hook: "kvm_gmem_migrate_folio",
        point: Point::MigrateFolio,
        roles: &[&[Folio]],
        entry: None,
        at_return: Some("migrated"),
    },
];

/// Where the arguments are, on the kernel of this plan.
pub fn args(plan: &Plan) -> [PointArgs; POINTS] {
    let mut args = [[NO_ARGUMENT; 4]; POINTS];
    for spec in &POINT_HOOKS {
        let Some(bound) = plan.hook(spec.hook).and_then(|hook| hook.bound()) else { continue };
        for (position, roles) in args[spec.point as usize].iter_mut().zip(spec.roles) {
            *position = roles.iter().find_map(|role| bound.shape.index(*role)).map_or(NO_ARGUMENT, u64::from);
        }
    }
    args
}

/// Whether the zapping function of this kernel is given the frame itself.
pub fn zap_takes_pfn(plan: &Plan) -> bool {
    let bound = plan.hook("tdx_sept_remove_private_spte").and_then(|hook| hook.bound());
    bound.is_some_and(|bound| bound.shape.page_unit == Some(PageUnit::Pfn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::table::HOOKS;

    #[test]
    fn every_point_is_a_hook_and_stands_at_its_number() {
        for (number, spec) in POINT_HOOKS.iter().enumerate() {
            assert_eq!(spec.point as usize, number);
            assert!(HOOKS.iter().any(|hook| hook.name == spec.hook), "{}", spec.hook);
        }
    }
}
