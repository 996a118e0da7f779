//! The worker's side: requests from stdin, replies to stdout.

use super::message::{ArgMessage, Failure, GridMessage, Id, Image, LaunchMessage, Reply, Request};
use super::wire;
use qtune_codegen::nvrtc::{Compiled, NvrtcError};
use qtune_codegen::Kernel;
use qtune_device::{
    Access, ArgValue, Buffer, Device, DeviceError, KernelImage, LaunchArgs, LoadedKernel,
};
use qtune_ir::{Arch, Problem, Schedule};
use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Write};
use std::sync::mpsc::{channel, Receiver};
use std::thread;

/// Compiles CUDA text, under a name for messages, for a target such as `sm_90a`.
pub type CompileText<'a> = dyn Fn(&str, &str, &str) -> Result<Compiled, NvrtcError> + 'a;

/// Serves compiles, or a device, or both, until stdin ends.
///
/// A GPU whose launch failed may be of no use any more (an illegal access leaves its context
/// broken), so after such a failure the worker answers and ends: the next one starts afresh.
///
/// # Errors
/// When stdout cannot be written.
pub fn serve(compiler: Option<&CompileText<'_>>, device: Option<&dyn Device>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    out.write_all(wire::GREETING)?;
    out.flush()?;
    let mut worker = Serving { compiler, device, buffers: HashMap::new(), kernels: HashMap::new() };
    for (request, bytes) in read_requests() {
        let risky = matches!(
            request,
            Request::Launch { .. } | Request::Time { .. } | Request::TimeChain { .. }
        );
        let (reply, bytes) = worker
            .answer(request, bytes)
            .unwrap_or_else(|failure| (Reply::Failed(failure), Vec::new()));
        let broken = risky && matches!(reply, Reply::Failed(_));
        wire::write(&mut out, &reply, &bytes)?;
        if broken {
            break;
        }
    }
    Ok(())
}

/// Reads stdin on a thread of its own, which ends the process with it: the main thread may be
/// waiting for a kernel that never ends.
fn read_requests() -> Receiver<(Request, Vec<u8>)> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut input = BufReader::new(io::stdin());
        while let Ok(request) = wire::read(&mut input) {
            if sender.send(request).is_err() {
                return;
            }
        }
        std::process::exit(0);
    });
    receiver
}

/// What a worker holds.
struct Serving<'a> {
    compiler: Option<&'a CompileText<'a>>,
    device: Option<&'a dyn Device>,
    buffers: HashMap<Id, Buffer>,
    kernels: HashMap<Id, LoadedKernel>,
}

/// A reply with its bytes.
type Answer = Result<(Reply, Vec<u8>), Failure>;

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Failure {
        match error {
            // The parent puts the place in front again.
            DeviceError::Launch { reason, .. } => Failure::Other(reason),
            other => Failure::Other(other.to_string()),
        }
    }
}

fn missing(what: &str) -> Failure {
    Failure::Other(format!("the worker has no such {what}"))
}

impl Serving<'_> {
    fn answer(&mut self, request: Request, bytes: Vec<u8>) -> Answer {
        let done = |bytes| Ok((Reply::Done, bytes));
        match request {
            Request::Compile { name, target } => self.compile(name, target, bytes),
            Request::Describe => {
                let device = self.device()?;
                let arch = Box::new(device.arch().clone());
                let (description, evidence) = (device.describe(), device.evidence());
                Ok((Reply::Device { arch, description, evidence }, Vec::new()))
            }
            Request::Load { id, image, ptx_bytes } => {
                let image = self.image(image, bytes, ptx_bytes)?;
                let loaded = self.device()?.load(&image)?;
                self.kernels.insert(id, loaded);
                done(Vec::new())
            }
            Request::Alloc { id, name, bytes, read_only } => {
                let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
                let buffer = self.device()?.alloc(&name, bytes, access)?;
                self.buffers.insert(id, buffer);
                done(Vec::new())
            }
            Request::Upload { id, offset } => {
                self.device()?.upload(self.buffer(id)?, offset, &bytes)?;
                done(Vec::new())
            }
            Request::Download { id, offset, len } => {
                done(self.device()?.download(self.buffer(id)?, offset, len)?)
            }
            Request::Launch { kernel, launch } => {
                let outcome =
                    self.device()?.launch(self.kernel(kernel)?, &self.launch(&launch)?)?;
                Ok((outcome.into(), Vec::new()))
            }
            Request::Time { kernel, launches, plan } => {
                let launches: Vec<LaunchArgs<'_>> =
                    launches.iter().map(|l| self.launch(l)).collect::<Result<_, Failure>>()?;
                let timing = self.device()?.time(self.kernel(kernel)?, &launches, &plan.into())?;
                Ok((Reply::Timed(timing), Vec::new()))
            }
            Request::TimeChain { chain, plan } => {
                let step = |(kernel, launch): &(Id, LaunchMessage)| {
                    Ok((self.kernel(*kernel)?, self.launch(launch)?))
                };
                let chain = chain.iter().map(step).collect::<Result<Vec<_>, Failure>>()?;
                let timing = self.device()?.time_chain(&chain, &plan.into())?;
                Ok((Reply::Timed(timing), Vec::new()))
            }
            Request::Free { id } => {
                self.buffers.remove(&id);
                self.kernels.remove(&id);
                done(Vec::new())
            }
        }
    }

    fn compile(&self, name: String, target: String, source: Vec<u8>) -> Answer {
        let compiler = self.compiler.ok_or_else(|| missing("compiler"))?;
        let source = String::from_utf8(source).map_err(|e| Failure::Other(e.to_string()))?;
        match compiler(&source, &name, &target) {
            Ok(compiled) => {
                let reply = Reply::Compiled { ptx: compiled.ptx, log: compiled.log };
                Ok((reply, compiled.cubin))
            }
            Err(NvrtcError::Compile { name, arch: target, log }) => {
                Err(Failure::Source { name, target, log })
            }
            Err(other) => Err(Failure::Other(other.to_string())),
        }
    }

    fn device(&self) -> Result<&dyn Device, Failure> {
        self.device.ok_or_else(|| missing("device"))
    }

    fn buffer(&self, id: Id) -> Result<&Buffer, Failure> {
        self.buffers.get(&id).ok_or_else(|| missing("buffer"))
    }

    fn kernel(&self, id: Id) -> Result<&LoadedKernel, Failure> {
        self.kernels.get(&id).ok_or_else(|| missing("kernel"))
    }

    /// The image that the parent has: the kernel, or its load-only twin, is generated again, and
    /// must be the same.
    fn image(&self, image: Image, code: Vec<u8>, ptx_bytes: usize) -> Result<KernelImage, Failure> {
        let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
        let problem: Problem = image.problem.parse().map_err(|e| other(&e))?;
        let schedule: Schedule = image.schedule.parse().map_err(|e| other(&e))?;
        let arch = self.device()?.arch();
        let kernel = regenerate((&problem, &schedule), arch, &image.source)?;
        let (ptx, cubin) = code.split_at_checked(ptx_bytes).ok_or_else(|| missing("code"))?;
        let ptx = String::from_utf8(ptx.to_vec()).map_err(|e| other(&e))?;
        let (target, log) = (image.target, image.log);
        Ok(KernelImage::from_parts(kernel, &target, ptx, cubin.to_vec(), log)?)
    }

    fn launch(&self, message: &LaunchMessage) -> Result<LaunchArgs<'_>, Failure> {
        let argument = |argument: &ArgMessage| match *argument {
            ArgMessage::U32(value) => Ok(ArgValue::U32(value)),
            ArgMessage::Buffer(id, offset) => Ok(ArgValue::Buffer(self.buffer(id)?, offset)),
            ArgMessage::TensorMap(id, offset, spec) => {
                Ok(ArgValue::TensorMap(self.buffer(id)?, offset, spec))
            }
        };
        let grid = |grid: &GridMessage| {
            let args = grid.args().iter().map(argument).collect::<Result<_, Failure>>()?;
            Ok(grid.with_args(args))
        };
        let grids = message.grids().iter().map(grid).collect::<Result<_, Failure>>()?;
        Ok(message.with_grids(grids))
    }
}

/// The kernel of this text: that of the schedule, or its load-only twin.
fn regenerate(
    (problem, schedule): (&Problem, &Schedule),
    arch: &Arch,
    source: &str,
) -> Result<Kernel, Failure> {
    let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
    let spec = qtune_formats::resolve(&problem.format).map_err(|e| other(&e))?;
    let same = |kernel: &Kernel| kernel.source == source;
    let made = qtune_codegen::generate(problem, &spec, schedule, arch);
    let made = match made {
        Ok(kernel) if same(&kernel) => return Ok(kernel),
        other => other,
    };
    // A twin's schedule need not be legal for a kernel.
    let twin = qtune_codegen::load_only_again(problem, &spec, schedule, arch);
    match (twin.ok().filter(same), made) {
        (Some(twin), _) => Ok(twin),
        (None, Err(refused)) => Err(other(&refused)),
        (None, Ok(_)) => Err(Failure::Other("the worker generates another kernel".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_ir::Family;

    #[test]
    fn a_worker_makes_the_load_only_twin_of_every_family_again() {
        let arch = Arch::named("h200").unwrap();
        for family in Family::ALL {
            for m in [1, 16, 64, 256, 1024] {
                let key = format!("w4a16.awq-g128.f16-f16.n4096.k4096.m{m}");
                let problem: Problem = key.parse().unwrap();
                let spec = qtune_formats::resolve(&problem.format).unwrap();
                let default = qtune_verify::default_of_family(family, &problem, &spec, &arch);
                let Ok(schedule) = default else { continue };
                let twin = qtune_codegen::load_only(&problem, &spec, &schedule, &arch).unwrap();
                let own = (&twin.problem, &twin.schedule);
                let again = regenerate(own, &arch, &twin.source).unwrap();
                assert_eq!(again.entries, twin.entries, "{schedule}");
                let kernel = qtune_codegen::generate(&problem, &spec, &schedule, &arch).unwrap();
                let own = (&problem, &schedule);
                assert_eq!(regenerate(own, &arch, &kernel.source).unwrap().source, kernel.source);
                assert!(matches!(regenerate(own, &arch, "another"), Err(Failure::Other(_))));
            }
        }
    }
}
