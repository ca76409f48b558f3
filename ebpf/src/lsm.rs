//! Refusals, by the kernel's security hooks (security/bpf): fallocate on a guest_memfd whose TD is held, and VMs that are
//! not to be made.
//!
//! `file_permission` is asked for every read and write of the host, too: what is not about a held TD ends after one look.

use core::hint::black_box;

use aya_ebpf::{EbpfContext as _, macros::lsm, programs::LsmContext};
use septwatch_common::{
    kvm::{Member, TDX_VM},
    tracker::Store as _,
};

use crate::{
    atomic,
    config::{self, word},
    kvm::tdr_of,
    maps::{CORDON, CORDONED, HELD, control, shared},
    point::traced,
    store::Maps,
    task::{Task, now_ns},
};

/// include/linux/fs.h
const MAY_WRITE: u64 = 2;

/// `KVM_CREATE_VM` (include/uapi/linux/kvm.h).
const KVM_CREATE_VM: u64 = 0xAE01;

/// `MKDEV(MISC_MAJOR, KVM_MINOR)`: /dev/kvm (include/linux/miscdevice.h; 20 bits of minor).
const KVM_DEVICE: u32 = 10 << 20 | 232;

/// What a security hook answers: the verifier wants to see that it is an errno.
#[inline(always)]
fn refusal(errno: u64) -> i32 {
    const EPERM: i32 = -1;
    let answer = black_box((errno as i64).wrapping_neg());
    if (-4095..0).contains(&answer) { answer as i32 } else { EPERM }
}

#[inline(always)]
fn is_any_held() -> bool {
    // SAFETY: both point into map values; volatile, because others write them.
    unsafe {
        shared().is_some_and(|shared| (&raw const (*shared).holds).read_volatile() != 0)
            || control().is_some_and(|control| (&raw const (*control).holds).read_volatile() != 0)
    }
}

/// vfs_fallocate() asks this before anything is done.
#[inline(always)]
fn permission(ctx: &LsmContext) -> Option<i32> {
    if !is_any_held() || traced(ctx.as_ptr(), 1)? & MAY_WRITE == 0 {
        return None;
    }
    let file = traced(ctx.as_ptr(), 0)?;
    let fallocate = word(word(file, Member::FileFOp)?, Member::FopFallocate)?;
    if fallocate == 0 || fallocate != config::gmem_fallocate() {
        return None;
    }
    let kvm = word(word(file, Member::FilePrivateData)?, Member::GmemKvm)?;
    let td = Maps.td(tdr_of(kvm)?)?;
    let id = u64::from(Maps.record_at(td)?.id);
    let held = HELD.get_ptr_mut(id)?;
    // SAFETY: points into a map value. An element that is deleted meanwhile is one of a TD that is gone.
    unsafe {
        let errno = (*held).errno;
        if errno == 0 {
            return None;
        }
        atomic::fetch_add(&raw mut (*held).refused, 1);
        (*held).refused_ns = now_ns();
        Some(refusal(errno))
    }
}

#[lsm(hook = "file_permission")]
pub fn file_permission(ctx: LsmContext) -> i32 {
    permission(&ctx).unwrap_or(0)
}

/// Arguments: file, command, its argument: the type of the VM.
#[inline(always)]
fn ioctl(ctx: &LsmContext) -> Option<i32> {
    if traced(ctx.as_ptr(), 1)? & 0xffff_ffff != KVM_CREATE_VM {
        return None;
    }
    let cordon = CORDON.get(0)?;
    let refused =
        cordon.errno != 0 && (cordon.every_type != 0 || traced(ctx.as_ptr(), 2)? == u64::from(TDX_VM));
    if !refused {
        return None;
    }
    let inode = word(traced(ctx.as_ptr(), 0)?, Member::FileInode)?;
    let device: u32 = config::read_kernel(config::member(inode, Member::InodeIRdev)?)?;
    if device != KVM_DEVICE {
        return None;
    }
    let cordoned = CORDONED.get_ptr_mut(0)?;
    // SAFETY: points into a map value; of two at the same moment, one is the last.
    unsafe {
        atomic::fetch_add(&raw mut (*cordoned).refused, 1);
        (*cordoned).refused_ns = now_ns();
        (*cordoned).tgid = u64::from(Task::current().tgid);
    }
    Some(refusal(cordon.errno))
}

#[lsm(hook = "file_ioctl")]
pub fn file_ioctl(ctx: LsmContext) -> i32 {
    ioctl(&ctx).unwrap_or(0)
}

/// Of processes of 32 bits (Linux 6.8 and later).
#[lsm(hook = "file_ioctl_compat")]
pub fn file_ioctl_compat(ctx: LsmContext) -> i32 {
    ioctl(&ctx).unwrap_or(0)
}
