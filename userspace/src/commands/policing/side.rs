//! The programs in the kernel, as reactions see them.

use septwatch_common::{
    PageKind,
    react::{Cordon, Held},
};

use crate::{
    hooks::reactions::Needs,
    policy::{actor::KernelSide, react::ReactError},
    source::{
        kernel::{Kernel, KernelError},
        session::Session,
    },
};

/// The kernel side, and which programs of reactions are attached to it.
pub struct Side<'a> {
    kernel: &'a mut Kernel,
    attached: Needs,
}

impl<'a> Side<'a> {
    /// That of an observation.
    pub fn of(session: &'a mut Session, attached: Needs) -> Self {
        Self { kernel: session.kernel(), attached }
    }
}

fn failed(error: KernelError) -> ReactError {
    ReactError::Kernel(Box::new(error))
}

fn not_attached(what: &str) -> ReactError {
    ReactError::Refused(format!("the program that refuses {what} is not attached"))
}

impl KernelSide for Side<'_> {
    fn held(&mut self, td: u32) -> Result<Option<Held>, ReactError> {
        self.kernel.reactions().held(td).map_err(failed)
    }

    fn hold(&mut self, td: u32, held: Held) -> Result<(), ReactError> {
        if !self.attached.hold {
            return Err(not_attached("fallocate on a guest_memfd"));
        }
        self.kernel.hold(td, held).map_err(failed)
    }

    fn release(&mut self, td: u32) -> Result<(), ReactError> {
        self.kernel.reactions().release(td).map_err(failed)
    }

    fn cordon(&mut self, cordon: Cordon) -> Result<(), ReactError> {
        // To welcome VMs again nothing needs to be attached.
        if !self.attached.cordon && cordon.errno != 0 {
            return Err(not_attached("KVM_CREATE_VM"));
        }
        self.kernel.reactions().cordon(cordon).map_err(failed)
    }

    fn lent(&mut self, td: u32) -> Result<u64, ReactError> {
        let tds = self.kernel.tds().map_err(failed)?;
        Ok(tds.iter().find(|record| record.id == td).map_or(0, |record| record.lent_as(PageKind::Leaf)))
    }
}
