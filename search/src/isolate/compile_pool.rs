//! Compiles in worker processes.

use super::child::Worker;
use super::message::{Reply, Request};
use super::WorkerCommand;
use crate::Compiler;
use qtune_codegen::Kernel;
use qtune_device::{DeviceError, KernelImage};
use qtune_ir::Arch;
use std::sync::{Mutex, PoisonError};

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
    fn ask(&self, request: Request, bytes: Vec<u8>) -> Result<(Reply, Vec<u8>), String> {
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

impl Compiler for CompilePool {
    fn compile(&self, kernel: Kernel, arch: &Arch) -> Result<KernelImage, DeviceError> {
        let lost = |entry: &str, reason| DeviceError::Lost {
            what: format!("compiler of `{entry}`"),
            reason,
        };
        let target = arch.target();
        let name = format!("{}.cu", kernel.main().name);
        let request = Request::Compile { name, target: target.clone() };
        let reply = self.ask(request, kernel.source.clone().into_bytes());
        match reply.map_err(|reason| lost(&kernel.main().name, reason))? {
            (Reply::Compiled { ptx, log }, cubin) => {
                KernelImage::from_parts(kernel, &target, ptx, cubin, log)
            }
            (Reply::Failed(failure), _) => Err(failure.into_error(&kernel.main().name)),
            _ => Err(lost(&kernel.main().name, "it answered something else".into())),
        }
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
