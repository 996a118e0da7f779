//! Ctrl-C: once to end in good order, twice to end at once.

use crate::exit::Exit;
use crate::output;
use anyhow::Context;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// A flag that is set by the first Ctrl-C, SIGTERM or SIGHUP.
pub fn flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::SeqCst) {
            // The trial log and the cache are whole at any moment.
            std::process::exit(Exit::Interrupted as i32);
        }
        output::note("\ninterrupted: ending the candidates under way; again to stop at once");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(flag)
}
