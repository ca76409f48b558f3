//! BPF_ATOMIC instructions.

use core::{
    intrinsics::{AtomicOrdering, atomic_and, atomic_cxchg, atomic_or, atomic_xadd, atomic_xchg},
    ops::Not,
};

/// Adds, and returns what was there before.
///
/// # Safety
/// `at` must point into a map value, aligned to 8 bytes.
#[inline(always)]
pub unsafe fn fetch_add(at: *mut u64, add: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(at, add) }
}

/// Writes, and returns what was there before.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn swap(at: *mut u64, new: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(at, new) }
}

/// Sets the bits that are set in `bits`, of 32 or 64.
///
/// # Safety
/// `at` must point into a map value, aligned to its size.
#[inline(always)]
pub unsafe fn set<T: Copy>(at: *mut T, bits: T) {
    // SAFETY: the caller's promise.
    unsafe { atomic_or::<T, T, { AtomicOrdering::SeqCst }>(at, bits) };
}

/// Clears them.
///
/// # Safety
/// As for [`set`].
#[inline(always)]
pub unsafe fn clear<T: Copy + Not<Output = T>>(at: *mut T, bits: T) {
    // SAFETY: the caller's promise.
    unsafe { atomic_and::<T, T, { AtomicOrdering::SeqCst }>(at, !bits) };
}

/// Replaces `old` by `new`; false where something else was there.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn replace(at: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's promise.
    let (was, _) =
        unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(at, old, new) };
    was == old
}
