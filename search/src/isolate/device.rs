//! A device in a worker process.

use super::child::{Loss, Worker};
use super::message::{ArgMessage, GridMessage, Id, Image, LaunchMessage, Plan, Reply, Request};
use super::WorkerCommand;
use qtune_device::{
    Access, ArgValue, Buffer, Device, DeviceError, Evidence, Grid, KernelImage, LaunchArgs,
    LaunchOutcome, LoadedKernel, Timing, TimingPlan,
};
use qtune_ir::Arch;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A device that a worker process drives.
///
/// What a worker held is lost with it: buffers and kernels from before answer with
/// [`DeviceError::Lost`], new ones start the next worker. Launches count nothing.
pub struct IsolatedDevice {
    link: Arc<Mutex<Link>>,
    arch: Arch,
    description: String,
    evidence: Evidence,
}

/// The way to the worker.
struct Link {
    command: WorkerCommand,
    worker: Option<Worker>,
    /// Workers so far: what belongs to an earlier one is gone.
    generation: u64,
    next: Id,
    /// What the worker may drop, told with the next request.
    garbage: Vec<Id>,
}

/// A buffer or kernel of the worker, dropped there when it is dropped here.
struct Remote {
    link: Arc<Mutex<Link>>,
    generation: u64,
    id: Id,
}

fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Remote {
    fn drop(&mut self) {
        let mut link = lock(&self.link);
        if link.generation == self.generation {
            link.garbage.push(self.id);
        }
    }
}

impl Link {
    /// Asks the worker, starting one if there is none.
    fn ask(
        &mut self,
        what: &str,
        request: Request,
        bytes: Vec<u8>,
    ) -> Result<(Reply, Vec<u8>), DeviceError> {
        let reply = self.ask_worker(request, bytes);
        match reply {
            Ok((Reply::Failed(failure), _)) => Err(failure.into_error(what)),
            Ok(reply) => Ok(reply),
            Err(Loss::NotStarted(reason)) => {
                Err(DeviceError::NoWorker { what: place(what), reason })
            }
            Err(loss) => {
                self.worker = None;
                Err(lost(what, loss.to_string()))
            }
        }
    }

    fn ask_worker(&mut self, request: Request, bytes: Vec<u8>) -> Result<(Reply, Vec<u8>), Loss> {
        let worker = match &mut self.worker {
            Some(worker) => worker,
            None => {
                self.generation += 1;
                self.garbage.clear();
                self.worker.insert(Worker::start(&self.command)?)
            }
        };
        for id in self.garbage.drain(..) {
            worker.ask(Request::Free { id }, Vec::new())?;
        }
        worker.ask(request, bytes)
    }

    fn number(&mut self) -> Id {
        self.next += 1;
        self.next
    }
}

fn place(what: &str) -> String {
    format!("device process at `{what}`")
}

fn lost(what: &str, reason: String) -> DeviceError {
    DeviceError::Lost { what: place(what), reason }
}

/// The error for a reply that does not answer the request.
fn confused<T>(what: &str) -> Result<T, DeviceError> {
    Err(lost(what, "it answered something else".into()))
}

impl IsolatedDevice {
    /// Starts a worker and asks what its device is.
    ///
    /// # Errors
    /// [`DeviceError::NoWorker`] if the worker cannot be started, [`DeviceError::Lost`] if it dies; the
    /// worker's own error if it has no device.
    pub fn start(command: WorkerCommand) -> Result<IsolatedDevice, DeviceError> {
        let mut link = Link { command, worker: None, generation: 0, next: 0, garbage: Vec::new() };
        let (reply, _) = link.ask("start", Request::Describe, Vec::new())?;
        let Reply::Device { arch, description, evidence } = reply else {
            return confused("start");
        };
        let link = Arc::new(Mutex::new(link));
        Ok(IsolatedDevice { link, arch: *arch, description, evidence })
    }

    /// The number of a thing that must be this worker's.
    fn id(&self, link: &Link, remote: Option<&Remote>, what: &str) -> Result<Id, DeviceError> {
        let foreign = || DeviceError::Buffer {
            buffer: what.into(),
            reason: "it belongs to another device".into(),
        };
        let remote = remote.filter(|r| Arc::ptr_eq(&r.link, &self.link)).ok_or_else(foreign)?;
        match link.worker.is_some() && remote.generation == link.generation {
            true => Ok(remote.id),
            false => Err(lost(what, "it went with an earlier process".into())),
        }
    }

    fn remote(&self, link: &Link, id: Id) -> Remote {
        Remote { link: Arc::clone(&self.link), generation: link.generation, id }
    }

    fn launch_message(
        &self,
        link: &Link,
        launch: &LaunchArgs<'_>,
    ) -> Result<LaunchMessage, DeviceError> {
        let argument = |value: &ArgValue<'_>| match value {
            ArgValue::U32(value) => Ok(ArgMessage::U32(*value)),
            ArgValue::Buffer(buffer, offset) => {
                let id = self.id(link, buffer.inner(), buffer.name())?;
                Ok(ArgMessage::Buffer(id, *offset))
            }
            ArgValue::TensorMap(buffer, offset, spec) => {
                let id = self.id(link, buffer.inner(), buffer.name())?;
                Ok(ArgMessage::TensorMap(id, *offset, *spec))
            }
        };
        let grid = |grid: &Grid<'_>| {
            let args = grid.args.iter().map(argument).collect::<Result<_, DeviceError>>()?;
            Ok(GridMessage::new(grid, args))
        };
        let grids = launch.grids.iter().map(grid).collect::<Result<_, DeviceError>>()?;
        Ok(LaunchMessage::new(launch, grids))
    }
}

impl Device for IsolatedDevice {
    fn arch(&self) -> &Arch {
        &self.arch
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn evidence(&self) -> Evidence {
        self.evidence
    }

    fn load(&self, image: &KernelImage) -> Result<LoadedKernel, DeviceError> {
        let kernel = &image.kernel;
        let message = Image {
            problem: kernel.problem.to_string(),
            schedule: kernel.schedule.to_string(),
            source: kernel.source.clone(),
            target: image.target.clone(),
            log: image.log.clone(),
        };
        let link = &mut lock(&self.link);
        let id = link.number();
        let request = Request::Load { id, image: message, ptx_bytes: image.ptx.len() };
        let code = [image.ptx.as_bytes(), &image.cubin].concat();
        link.ask(&kernel.main().name, request, code)?;
        Ok(LoadedKernel::new(image.clone(), self.remote(link, id)))
    }

    fn alloc(&self, name: &str, bytes: usize, access: Access) -> Result<Buffer, DeviceError> {
        let link = &mut lock(&self.link);
        let id = link.number();
        let read_only = access == Access::ReadOnly;
        let request = Request::Alloc { id, name: name.into(), bytes, read_only };
        link.ask(name, request, Vec::new())?;
        Ok(Buffer::new(name, bytes, self.remote(link, id)))
    }

    fn upload(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let link = &mut lock(&self.link);
        let id = self.id(link, buffer.inner(), buffer.name())?;
        link.ask(buffer.name(), Request::Upload { id, offset }, bytes.to_vec())?;
        Ok(())
    }

    fn download(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<u8>, DeviceError> {
        let link = &mut lock(&self.link);
        let id = self.id(link, buffer.inner(), buffer.name())?;
        let request = Request::Download { id, offset, len };
        let (_, bytes) = link.ask(buffer.name(), request, Vec::new())?;
        match bytes.len() == len {
            true => Ok(bytes),
            false => confused(buffer.name()),
        }
    }

    fn launch(
        &self,
        kernel: &LoadedKernel,
        launch: &LaunchArgs<'_>,
    ) -> Result<LaunchOutcome, DeviceError> {
        let entry = &kernel.image().kernel.main().name;
        let link = &mut lock(&self.link);
        let id = self.id(link, kernel.inner(), entry)?;
        let launch = self.launch_message(link, launch)?;
        let request = Request::Launch { kernel: id, launch };
        match link.ask(entry, request, Vec::new())? {
            (Reply::Launched { findings, blocks_run, blocks_total }, _) => {
                Ok(LaunchOutcome { findings, blocks_run, blocks_total, ..LaunchOutcome::default() })
            }
            _ => confused(entry),
        }
    }

    fn time(
        &self,
        kernel: &LoadedKernel,
        launches: &[LaunchArgs<'_>],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        let entry = &kernel.image().kernel.main().name;
        let link = &mut lock(&self.link);
        let id = self.id(link, kernel.inner(), entry)?;
        let launches =
            launches.iter().map(|l| self.launch_message(link, l)).collect::<Result<_, _>>()?;
        let request = Request::Time { kernel: id, launches, plan: Plan::from(plan) };
        match link.ask(entry, request, Vec::new())? {
            (Reply::Timed(timing), _) => Ok(timing),
            _ => confused(entry),
        }
    }

    fn time_chain(
        &self,
        chain: &[(&LoadedKernel, LaunchArgs<'_>)],
        plan: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        const WHAT: &str = "chain";
        let link = &mut lock(&self.link);
        let step = |(kernel, launch): &(&LoadedKernel, LaunchArgs<'_>)| {
            let entry = &kernel.image().kernel.main().name;
            let id = self.id(link, kernel.inner(), entry)?;
            Ok((id, self.launch_message(link, launch)?))
        };
        let chain = chain.iter().map(step).collect::<Result<_, DeviceError>>()?;
        let request = Request::TimeChain { chain, plan: Plan::from(plan) };
        match link.ask(WHAT, request, Vec::new())? {
            (Reply::Timed(timing), _) => Ok(timing),
            _ => confused(WHAT),
        }
    }
}
