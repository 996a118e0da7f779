//! The arguments of a launch with their files: read, put into device memory, compared, written.

use super::compare::{Comparison, Difference, Elements, Errors};
use super::launch_file::{ArgSpec, BufferSpec, LaunchFile, Mode};
use super::npy::{self, Array};
use super::number::Number;
use super::tensor_map::{MapBuffer, MapSpec};
use crate::output;
use anyhow::{bail, ensure, Context};
use qtune_sim::{Access, Arg, BufferId, Memory};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The arguments of a launch.
#[derive(Debug)]
pub struct Arguments {
    args: Vec<Argument>,
}

#[derive(Debug)]
enum Argument {
    Value(Arg),
    Buffer(Box<Buffer>),
    /// A tensor map, and the buffer that it brings or the argument that does.
    TensorMap(MapSpec, Result<Box<Buffer>, usize>),
}

impl Argument {
    /// The buffer that the argument brings.
    fn buffer(&self) -> Option<&Buffer> {
        match self {
            Argument::Buffer(buffer) | Argument::TensorMap(_, Ok(buffer)) => Some(buffer.as_ref()),
            Argument::Value(_) | Argument::TensorMap(_, Err(_)) => None,
        }
    }

    /// Number of the argument that brings the buffer of argument `index`, which this is.
    fn source(&self, index: usize) -> usize {
        match self {
            Argument::TensorMap(_, Err(other)) => *other,
            _ => index,
        }
    }
}

/// A buffer argument with what its files hold.
#[derive(Debug)]
struct Buffer {
    /// Number of the argument.
    arg: usize,
    /// Unique name, for findings.
    name: String,
    mode: Mode,
    number: Number,
    /// The data is dropped where the kernel must not see it.
    array: Array,
    bytes: usize,
    expected: Option<(Number, Array)>,
    tolerance: f64,
    write: Option<PathBuf>,
}

/// What a run left in the buffers that it may write.
#[derive(Debug)]
pub struct Outputs {
    outputs: Vec<Output>,
}

#[derive(Debug)]
struct Output {
    arg: usize,
    data: Vec<u8>,
    /// For each element whether it was written; `None` where all are defined from the start.
    written: Option<Vec<bool>>,
}

/// The whole contents of a file. Devices and pipes, which may never end, are refused.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let open = || -> std::io::Result<Option<Vec<u8>>> {
        match fs::metadata(path)?.is_file() {
            true => fs::read(path).map(Some),
            false => Ok(None),
        }
    };
    match open().with_context(|| format!("cannot read {}", path.display()))? {
        Some(bytes) => Ok(bytes),
        None => bail!("{} is no regular file", path.display()),
    }
}

fn read_array(path: &Path) -> anyhow::Result<Array> {
    Array::parse(&read(path)?).with_context(|| path.display().to_string())
}

impl Arguments {
    /// Reads all files of a launch; they are relative to `folder`.
    pub fn load(launch: &LaunchFile, folder: &Path) -> anyhow::Result<Arguments> {
        check_targets(launch, folder)?;
        let mut names = BTreeSet::new();
        let mut load = |index: usize, spec: &BufferSpec| {
            let mut name = spec.path.clone();
            if !names.insert(name.clone()) {
                name += &format!("#{index}");
            }
            let buffer = Buffer::load(index, name, spec, folder);
            Ok::<_, anyhow::Error>(Box::new(buffer.with_context(|| format!("`args[{index}]`"))?))
        };
        let args = launch.args.iter().enumerate().map(|(index, arg)| match arg {
            ArgSpec::Value(value) => Ok(Argument::Value(value.clone())),
            ArgSpec::Buffer(spec) => Ok(Argument::Buffer(load(index, spec)?)),
            ArgSpec::TensorMap(map, MapBuffer::Own(spec)) => {
                Ok(Argument::TensorMap(map.clone(), Ok(load(index, spec)?)))
            }
            ArgSpec::TensorMap(map, MapBuffer::Argument(other)) => {
                Ok(Argument::TensorMap(map.clone(), Err(*other)))
            }
        });
        Ok(Arguments { args: args.collect::<anyhow::Result<_>>()? })
    }

    fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.args.iter().filter_map(Argument::buffer)
    }

    /// Puts the buffers into fresh memory; returns it and the kernel's arguments.
    pub fn place(&self) -> anyhow::Result<(Memory, Vec<Arg>)> {
        let mut memory = Memory::new();
        let placed = self
            .args
            .iter()
            .map(|arg| arg.buffer().map(|buffer| buffer.place(&mut memory)).transpose());
        let placed: Vec<Option<BufferId>> = placed.collect::<anyhow::Result<_>>()?;
        let args = self.args.iter().enumerate().map(|(index, arg)| {
            let source = arg.source(index);
            let id = placed.get(source).copied().flatten();
            match (arg, id) {
                (Argument::Value(value), _) => Ok(value.clone()),
                (Argument::Buffer(_), Some(id)) => Ok(Arg::Buffer { id, offset: 0 }),
                (Argument::TensorMap(map, _), Some(id)) => {
                    let map = map.place(id, memory.address(id));
                    Ok(Arg::TensorMap(map.with_context(|| format!("`args[{index}]`"))?))
                }
                _ => bail!("argument {source} is no buffer"),
            }
        });
        let args = args.collect::<anyhow::Result<_>>()?;
        Ok((memory, args))
    }

    /// Takes what a run with `args` left in `memory`.
    pub fn take(&self, memory: &Memory, args: &[Arg]) -> anyhow::Result<Outputs> {
        let buffers = self.buffers().filter(|buffer| buffer.mode != Mode::In);
        let outputs = buffers.map(|buffer| match args.get(buffer.arg) {
            Some(Arg::Buffer { id, .. }) => buffer.take(memory, *id),
            Some(Arg::TensorMap(map)) => buffer.take(memory, map.buffer),
            _ => bail!("argument {} is no buffer", buffer.arg),
        });
        Ok(Outputs { outputs: outputs.collect::<Result<_, _>>()? })
    }

    /// The outputs before the kernel runs.
    pub fn untouched(&self) -> anyhow::Result<Outputs> {
        let (memory, args) = self.place()?;
        self.take(&memory, &args)
    }

    /// For each element of all outputs whether a run changed it.
    pub fn changed(&self, before: &Outputs, after: &Outputs) -> Vec<bool> {
        let pairs = self.outputs(before).zip(&after.outputs);
        let changed = pairs.flat_map(|((buffer, before), after)| {
            let size = buffer.array.stored.bytes;
            let elements = before.data.chunks_exact(size).zip(after.data.chunks_exact(size));
            elements.enumerate().map(|(index, (old, new))| {
                old != new || after.written.as_ref().is_some_and(|written| written[index])
            })
        });
        changed.collect()
    }

    /// Compares outputs with what is expected of them. After a run of some blocks only, elements
    /// that were left alone are left out.
    pub fn compare(&self, outputs: &Outputs, sampled: bool) -> Vec<Comparison> {
        let pairs = self.outputs(outputs);
        pairs.filter_map(|(buffer, output)| buffer.compare(output, sampled)).collect()
    }

    /// The outputs that two runs left with different bits.
    pub fn differences(&self, a: &Outputs, b: &Outputs) -> Vec<Difference> {
        let pairs = self.outputs(a).zip(&b.outputs);
        let counted = pairs.map(|((buffer, a), b)| {
            let size = buffer.array.stored.bytes;
            let pairs = a.data.chunks_exact(size).zip(b.data.chunks_exact(size));
            let elements = pairs.filter(|(a, b)| a != b).count();
            Difference { arg: buffer.arg, buffer: buffer.name.clone(), elements }
        });
        counted.filter(|difference| difference.elements > 0).collect()
    }

    /// Writes the outputs that the launch names files for.
    pub fn write(&self, outputs: &Outputs) -> anyhow::Result<()> {
        for (buffer, Output { data, .. }) in self.outputs(outputs) {
            if let Some(path) = &buffer.write {
                output::file(path, &buffer.array.file_with(data))?;
                output::note(format_args!("wrote {}", path.display()));
            }
        }
        Ok(())
    }

    fn outputs<'a>(
        &'a self,
        outputs: &'a Outputs,
    ) -> impl Iterator<Item = (&'a Buffer, &'a Output)> {
        let of = |arg: usize| outputs.outputs.iter().find(move |output| output.arg == arg);
        self.buffers().filter_map(move |buffer| Some((buffer, of(buffer.arg)?)))
    }
}

/// Refuses files that cannot be written before time is spent on the run, and those whose loss
/// nobody can want.
fn check_targets(launch: &LaunchFile, folder: &Path) -> anyhow::Result<()> {
    let mut taken = BTreeSet::new();
    let buffers = || {
        launch.args.iter().filter_map(|arg| match arg {
            ArgSpec::Buffer(spec) | ArgSpec::TensorMap(_, MapBuffer::Own(spec)) => Some(spec),
            ArgSpec::Value(_) | ArgSpec::TensorMap(_, MapBuffer::Argument(_)) => None,
        })
    };
    for spec in buffers() {
        taken.extend(spec.shape.is_none().then(|| folder.join(&spec.path)));
        taken.extend(spec.expected.as_ref().map(|path| folder.join(path)));
    }
    for path in buffers().filter_map(|spec| spec.write.as_ref()).map(|path| folder.join(path)) {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        ensure!(
            parent.unwrap_or(Path::new(".")).is_dir() && !path.is_dir(),
            "cannot write {}: its folder does not exist or it is a folder itself",
            path.display()
        );
        let name = path.display().to_string();
        ensure!(taken.insert(path), "`write` {name} is another file of the launch; name a new one");
    }
    Ok(())
}

impl Buffer {
    fn load(arg: usize, name: String, spec: &BufferSpec, folder: &Path) -> anyhow::Result<Buffer> {
        let (mut array, bytes) = declared(spec, folder)?;
        let number = Number::of(array.stored, spec.dtype).context(spec.path.clone())?;
        let expected = spec.expected.as_ref().map(|path| {
            let expected = read_array(&folder.join(path))?;
            let number = expected_number(&array, number, &expected).context(path.clone())?;
            Ok::<_, anyhow::Error>((number, expected))
        });
        let expected = expected.transpose()?;
        if spec.mode == Mode::Out {
            array.data = Vec::new();
        }
        Ok(Buffer {
            arg,
            name,
            mode: spec.mode,
            number,
            array,
            bytes,
            expected,
            tolerance: spec.tolerance,
            write: spec.write.as_ref().map(|path| folder.join(path)),
        })
    }

    fn place(&self, memory: &mut Memory) -> anyhow::Result<BufferId> {
        let access = match self.mode {
            Mode::In => Access::ReadOnly,
            Mode::Out | Mode::Inout => Access::ReadWrite,
        };
        let id = memory.alloc(&self.name, self.bytes, access)?;
        if self.mode != Mode::Out {
            memory.write(id, 0, &self.array.data)?;
        }
        Ok(id)
    }

    fn take(&self, memory: &Memory, id: BufferId) -> anyhow::Result<Output> {
        let size = self.array.stored.bytes;
        let starts = (0..self.bytes).step_by(size);
        let written = (self.mode == Mode::Out)
            .then(|| starts.map(|at| memory.is_defined(id, at..at + size)).collect());
        Ok(Output { arg: self.arg, data: memory.read(id, 0, self.bytes)?, written })
    }

    fn compare(&self, output: &Output, sampled: bool) -> Option<Comparison> {
        let (expected_number, expected) = self.expected.as_ref()?;
        let bytes = self.array.stored.bytes;
        // Of an `inout` buffer nobody can tell which elements a part of the blocks should have
        // written; those that changed they did write.
        let changed = |index: usize| {
            let range = index * bytes..(index + 1) * bytes;
            self.array.data[range.clone()] != output.data[range]
        };
        let chosen = |index: usize| match &output.written {
            Some(written) => written[index],
            None => !sampled || changed(index),
        };
        let errors = Errors::of(
            Elements { number: self.number, bytes, data: &output.data },
            Elements {
                number: *expected_number,
                bytes: expected.stored.bytes,
                data: &expected.data,
            },
            chosen,
        );
        let unwritten = match &output.written {
            Some(written) if !sampled => written.iter().filter(|written| !**written).count(),
            _ => 0,
        };
        // A lock or a counter may end as it began.
        let returns = output.written.is_none() && expected.data == self.array.data;
        let error = errors.relative();
        Some(Comparison {
            arg: self.arg,
            buffer: self.name.clone(),
            error,
            tolerance: self.tolerance,
            elements: errors.elements,
            unwritten: unwritten as u64,
            passed: error <= self.tolerance && unwritten == 0 && (errors.elements > 0 || returns),
        })
    }
}

/// Most bytes of an output without a file.
const MAX_OUTPUT: u64 = 1 << 34;

/// What a buffer's file holds, or the type and size that stand for it, and the bytes of the buffer.
fn declared(spec: &BufferSpec, folder: &Path) -> anyhow::Result<(Array, usize)> {
    let (Some(shape), Some(dtype)) = (&spec.shape, spec.dtype) else {
        let array = read_array(&folder.join(&spec.path))?;
        let bytes = array.data.len();
        return Ok((array, bytes));
    };
    let bytes = npy::size(dtype.stored(), shape).context("`shape`")?;
    ensure!(bytes <= MAX_OUTPUT, "`shape` {shape:?} has {bytes} bytes, the most is {MAX_OUTPUT}");
    let array = Array { stored: dtype.stored(), shape: shape.clone(), data: Vec::new() };
    Ok((array, usize::try_from(bytes)?))
}

/// How to read what is expected: like the buffer where it is stored alike, else as floats.
fn expected_number(array: &Array, number: Number, expected: &Array) -> anyhow::Result<Number> {
    ensure!(
        expected.shape == array.shape,
        "its shape is {:?}, the buffer's {:?}",
        expected.shape,
        array.shape
    );
    match expected.stored == array.stored {
        true => Ok(number),
        false if expected.stored.kind == 'f' => Ok(Number::AsStored(expected.stored)),
        false => bail!(
            "it holds {}; expected are {} as in the buffer, or floats",
            expected.stored,
            array.stored
        ),
    }
}
