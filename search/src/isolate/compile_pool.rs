//! Compiles in worker processes.

use super::child::{Loss, Worker};
use super::message::{Reply, Request};
use super::WorkerCommand;
use crate::Compiler;
use qtune_codegen::Kernel;
use qtune_device::{DeviceError, KernelImage};
use qtune_ir::Arch;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A compiler whose compiles run in worker processes, one for each thread that compiles. A worker
/// serves many compiles; one that is lost is replaced.
pub struct CompilePool {
    command: WorkerCommand,
    fingerprint: String,
    idle: Mutex<Vec<Worker>>,
}

impl CompilePool {
    /// A pool of workers whose compiler has this fingerprint. Workers start when they are needed.
    pub fn new(command: WorkerCommand, fingerprint: String) -> CompilePool {
        CompilePool { command, fingerprint, idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reply from any worker; it is idle again afterwards, unless it was lost.
    fn ask(&self, request: Request, bytes: Vec<u8>) -> Result<(Reply, Vec<u8>), Loss> {
        let idle = self.idle().pop();
        let mut worker = match idle {
            Some(worker) => worker,
            None => Worker::start(&self.command)?,
        };
        let reply = worker.ask(request, bytes)?;
        self.idle().push(worker);
        Ok(reply)
    }
}

/// The error for a compile without a reply.
fn failed(what: &str, loss: Loss) -> DeviceError {
    let what = what.to_owned();
    match loss {
        Loss::NotStarted(reason) => DeviceError::NoWorker { what, reason },
        Loss::TimedOut(limit) => DeviceError::TimedOut { what, limit },
        Loss::Ended(reason) => DeviceError::Lost { what, reason },
    }
}

impl Compiler for CompilePool {
    fn compile(&self, kernel: Kernel, arch: &Arch) -> Result<KernelImage, DeviceError> {
        let what = format!("compiler of `{}`", kernel.main().name);
        let target = arch.target();
        let name = format!("{}.cu", kernel.main().name);
        let request = Request::Compile { name, target: target.clone() };
        let reply = self.ask(request, kernel.source.clone().into_bytes());
        match reply.map_err(|loss| failed(&what, loss))? {
            (Reply::Compiled { ptx, log }, cubin) => {
                KernelImage::from_parts(kernel, &target, ptx, cubin, log)
            }
            (Reply::Failed(failure), _) => Err(failure.into_error(&kernel.main().name)),
            _ => Err(DeviceError::Lost { what, reason: "it answered something else".into() }),
        }
    }

    fn limit(&self) -> Option<Duration> {
        Some(self.command.limit)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
