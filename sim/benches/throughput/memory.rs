//! Peak memory of a run, counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::kernels::Kernel;
use qtune_sim::{run, RunOptions, SimError};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator with a count of live bytes.
pub struct Counting;

fn count(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Most bytes alive while the kernel runs, its buffers and the decoded module included, over the
/// bytes of its buffers.
pub fn peak_over_buffers(kernel: &mut Kernel) -> Result<f64, SimError> {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let options = RunOptions { threads: 1, ..RunOptions::default() };
    run(&kernel.module, &kernel.entry, &kernel.launch, &mut kernel.memory, &options)?;
    let added = PEAK.load(Relaxed) - before;
    Ok((kernel.buffer_bytes + added) as f64 / kernel.buffer_bytes as f64)
}
