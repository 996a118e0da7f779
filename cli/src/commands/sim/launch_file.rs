//! The launch file: which kernel runs in which shape on which arguments.

use super::tensor_map::{self, MapBuffer, MapSpec};
use anyhow::{bail, ensure, Context};
use qtune_sim::Arg;
use serde::Deserialize;

/// A launch file as it is written. Unknown names are errors: a mistyped `expected` must not turn
/// a comparison off.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with entry, grid, block and args")]
struct Written {
    entry: Option<String>,
    grid: [u32; 3],
    block: [u32; 3],
    #[serde(default = "one_block")]
    cluster: [u32; 3],
    #[serde(default)]
    dynamic_shared_bytes: u32,
    args: Vec<WrittenArg>,
}

fn one_block() -> [u32; 3] {
    [1, 1, 1]
}

/// One argument: exactly one of its kinds, and for `buffer` what goes with it. A struct instead of
/// an enum, so that errors name the field.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object such as {\"u32\": 1}")]
struct WrittenArg {
    buffer: Option<String>,
    mode: Option<Mode>,
    dtype: Option<DType>,
    shape: Option<Vec<u64>>,
    expected: Option<String>,
    relative_tolerance: Option<f64>,
    write: Option<String>,
    u32: Option<u32>,
    i32: Option<i32>,
    u64: Option<u64>,
    i64: Option<i64>,
    f32: Option<f32>,
    bytes: Option<String>,
    tensor_map: Option<tensor_map::Written>,
}

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Reads it only; a store is a finding.
    In,
    /// Writes it; what the file holds is not shown to the kernel.
    Out,
    /// Reads and writes it.
    Inout,
}

/// What the elements of a buffer stand for, where the file's own type does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE half precision.
    Fp16,
    /// bfloat16, stored as 16-bit integers.
    Bf16,
    /// IEEE single precision.
    Fp32,
    /// 8-bit floats with 4 exponent bits and no infinities, stored as bytes.
    Fp8e4nv,
    /// 32-bit integers.
    I32,
}

/// A checked launch file. Paths are as written, relative to the file.
#[derive(Debug, PartialEq)]
pub struct LaunchFile {
    /// The kernel; `None` for the only one of the module.
    pub entry: Option<String>,
    /// Thread blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads per block along x, y, z.
    pub block: [u32; 3],
    /// Thread blocks per cluster along x, y, z.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared_bytes: u32,
    /// The arguments, in order.
    pub args: Vec<ArgSpec>,
}

/// One argument.
#[derive(Debug, PartialEq)]
pub enum ArgSpec {
    /// A value.
    Value(Arg),
    /// The address of a buffer.
    Buffer(BufferSpec),
    /// A tensor map.
    TensorMap(MapSpec, MapBuffer),
}

/// A buffer argument.
#[derive(Debug, PartialEq)]
pub struct BufferSpec {
    /// The npy file with its contents, or for an output its type and size; with `shape` only a name.
    pub path: String,
    /// Elements along each axis of an output without a file; it has a `dtype`.
    pub shape: Option<Vec<u64>>,
    /// What the kernel does with it.
    pub mode: Mode,
    /// What its elements stand for.
    pub dtype: Option<DType>,
    /// What to compare with.
    pub expected: Option<String>,
    /// Largest norm of the difference over the norm of what is expected.
    pub tolerance: f64,
    /// Where to write the contents after the run.
    pub write: Option<String>,
}

impl LaunchFile {
    /// Reads a launch file's text.
    pub fn parse(text: &str) -> anyhow::Result<LaunchFile> {
        let mut json = serde_json::Deserializer::from_str(text);
        let written: Written = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            match error.path().to_string().as_str() {
                "." => anyhow::anyhow!("{}", error.inner()),
                place => anyhow::anyhow!("`{place}`: {}", error.inner()),
            }
        })?;
        json.end()?;
        let paths: Vec<Option<String>> = written.args.iter().map(WrittenArg::owned_path).collect();
        let args = written.args.into_iter().enumerate().map(|(index, arg)| {
            // Named like the fields in errors of the JSON itself.
            checked(arg, &paths).with_context(|| format!("`args[{index}]`"))
        });
        Ok(LaunchFile {
            entry: written.entry,
            grid: written.grid,
            block: written.block,
            cluster: written.cluster,
            dynamic_shared_bytes: written.dynamic_shared_bytes,
            args: args.collect::<Result<_, _>>()?,
        })
    }
}

impl WrittenArg {
    fn has_buffer_fields(&self) -> bool {
        self.mode.is_some()
            || self.dtype.is_some()
            || self.shape.is_some()
            || self.expected.is_some()
            || self.relative_tolerance.is_some()
            || self.write.is_some()
    }

    /// File of the buffer that this argument brings. A tensor map brings one when it says how the
    /// kernel uses it.
    fn owned_path(&self) -> Option<String> {
        let map = self.tensor_map.as_ref().filter(|_| self.mode.is_some());
        self.buffer.clone().or_else(|| map.map(|map| map.buffer.clone()))
    }

    fn into_buffer(self, path: String, mode: Mode) -> anyhow::Result<BufferSpec> {
        let buffer = BufferSpec {
            path,
            shape: self.shape,
            mode,
            dtype: self.dtype,
            tolerance: self.relative_tolerance.unwrap_or(0.0),
            expected: self.expected,
            write: self.write,
        };
        check_buffer(&buffer, self.relative_tolerance.is_some())?;
        Ok(buffer)
    }
}

/// A tensor map of a buffer that another argument brings (`paths` by argument), or of its own.
fn checked_map(mut arg: WrittenArg, paths: &[Option<String>]) -> anyhow::Result<ArgSpec> {
    let Some(written) = arg.tensor_map.take() else { bail!("no tensor map") };
    let map = MapSpec::of(&written).context("`tensor_map`")?;
    let shared = paths.iter().position(|path| path.as_ref() == Some(&written.buffer));
    let buffer = match (arg.mode, shared) {
        (None, Some(_)) if arg.has_buffer_fields() => {
            bail!("fields of a buffer go with the argument that has its `mode`")
        }
        (None, Some(index)) => MapBuffer::Argument(index),
        (mode, _) => MapBuffer::Own(arg.into_buffer(written.buffer, mode.unwrap_or(Mode::In))?),
    };
    Ok(ArgSpec::TensorMap(map, buffer))
}

fn checked(arg: WrittenArg, paths: &[Option<String>]) -> anyhow::Result<ArgSpec> {
    let bytes = arg.bytes.as_deref().map(from_hex).transpose().context("`bytes`")?;
    if let Some(value) = arg.f32 {
        // A number beyond the range of f32 would silently become infinite.
        ensure!(value.is_finite(), "`f32` is beyond the range of f32");
    }
    let mut values = [
        arg.u32.map(Arg::U32),
        arg.i32.map(Arg::I32),
        arg.u64.map(Arg::U64),
        arg.i64.map(Arg::I64),
        arg.f32.map(Arg::F32),
        bytes.map(Arg::Bytes),
    ]
    .into_iter()
    .flatten();
    match (&arg.buffer, &arg.tensor_map, values.next(), values.next()) {
        (Some(path), None, None, None) => {
            let Some(mode) = arg.mode else { bail!("`mode` is missing; it is in, out or inout") };
            let path = path.clone();
            Ok(ArgSpec::Buffer(arg.into_buffer(path, mode)?))
        }
        (None, Some(_), None, None) => checked_map(arg, paths),
        (None, None, Some(_), None) if arg.has_buffer_fields() => {
            bail!(
                "mode, dtype, shape, expected, relative_tolerance and write go with `buffer` only"
            )
        }
        (None, None, Some(value), None) => Ok(ArgSpec::Value(value)),
        _ => {
            bail!("exactly one of buffer, tensor_map, u32, i32, u64, i64, f32 and bytes is needed")
        }
    }
}

fn check_buffer(buffer: &BufferSpec, has_tolerance: bool) -> anyhow::Result<()> {
    let BufferSpec { mode, dtype, shape, expected, write, tolerance, .. } = buffer;
    ensure!(
        shape.is_none() || (*mode == Mode::Out && dtype.is_some()),
        "`shape` stands for the file of an output: it needs mode out and `dtype`"
    );
    ensure!(
        *mode != Mode::In || (expected.is_none() && write.is_none()),
        "`expected` and `write` need mode out or inout"
    );
    ensure!(
        tolerance.is_finite() && *tolerance >= 0.0,
        "`relative_tolerance` is {tolerance}, not a number from 0 up"
    );
    ensure!(expected.is_some() || !has_tolerance, "`relative_tolerance` needs `expected`");
    Ok(())
}

fn from_hex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    match digits {
        Some(digits) if !digits.is_empty() && digits.len() % 2 == 0 => {
            Ok(digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
        }
        _ => bail!("`{text}` is not an even number of hexadecimal digits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_args(args: &str) -> anyhow::Result<LaunchFile> {
        LaunchFile::parse(&format!(r#"{{"grid":[1,1,1],"block":[32,1,1],"args":[{args}]}}"#))
    }

    #[test]
    fn every_kind_of_argument_is_read() {
        let launch = with_args(
            r#"{"u32":4294967295},{"i32":-1},{"u64":1},{"i64":-9},{"f32":0.5},{"bytes":"00fF"},
               {"buffer":"a.npy","mode":"inout","dtype":"bf16","expected":"e.npy",
                "relative_tolerance":0.02,"write":"o.npy"}"#,
        )
        .unwrap();
        let values = [
            Arg::U32(u32::MAX),
            Arg::I32(-1),
            Arg::U64(1),
            Arg::I64(-9),
            Arg::F32(0.5),
            Arg::Bytes(vec![0, 255]),
        ];
        let mut expected: Vec<ArgSpec> = values.into_iter().map(ArgSpec::Value).collect();
        expected.push(ArgSpec::Buffer(BufferSpec {
            path: "a.npy".into(),
            shape: None,
            mode: Mode::Inout,
            dtype: Some(DType::Bf16),
            expected: Some("e.npy".into()),
            tolerance: 0.02,
            write: Some("o.npy".into()),
        }));
        assert_eq!(launch.args, expected);
        assert_eq!((launch.entry, launch.dynamic_shared_bytes), (None, 0));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (arg, parts) in [
            (r#"{"u32":-1}"#, &["`args[0].u32`", "-1"][..]),
            (r#"{"u32":1},{"i32":3000000000}"#, &["`args[1].i32`", "3000000000"]),
            (r#"{"u23":1}"#, &["`args[0].u23`", "unknown field `u23`"]),
            (r#"{"u32":1,"i32":1}"#, &["`args[0]`", "exactly one"]),
            (r#"{}"#, &["`args[0]`", "exactly one"]),
            (r#"{"u32":1,"mode":"in"}"#, &["`args[0]`", "`buffer` only"]),
            (r#"{"f32":1e300}"#, &["`args[0]", "range"]),
            (r#"{"bytes":"abc"}"#, &["`args[0]`", "`bytes`", "hexadecimal"]),
            (r#"{"bytes":"é0"}"#, &["`args[0]`", "hexadecimal"]),
            (r#"{"buffer":"a"}"#, &["`args[0]`", "`mode` is missing"]),
            (r#"{"buffer":"a","mode":"read"}"#, &["`args[0].mode`", "`inout`"]),
            (r#"{"buffer":"a","mode":"in","expected":"e"}"#, &["`args[0]`", "mode out"]),
            (r#"{"buffer":"a","mode":"in","dtype":"fp32","shape":[1]}"#, &["`args[0]`", "`shape`"]),
            (r#"{"buffer":"a","mode":"out","shape":[1]}"#, &["`args[0]`", "`dtype`"]),
            (
                r#"{"buffer":"a","mode":"out","relative_tolerance":1}"#,
                &["`args[0]`", "needs `expected`"],
            ),
            (
                r#"{"buffer":"a","mode":"out","expected":"e","relative_tolerance":-1}"#,
                &["`args[0]`", "from 0 up"],
            ),
            (r#"{"tensor_map":{"buffer":"a"}}"#, &["`args[0].tensor_map`", "missing field"]),
            (
                r#"{"tensor_map":{"buffer":"a","dtype":"fp16","dims":[64],"box":[64],"interleave":"32B"}}"#,
                &["`args[0]`", "`tensor_map`", "interleaved tensors are not simulated"],
            ),
        ] {
            let error = format!("{:#}", with_args(arg).unwrap_err());
            for part in parts {
                assert!(error.contains(part), "{arg}: `{part}` is not in: {error}");
            }
        }
    }

    #[test]
    fn tensor_maps_share_the_buffers_of_other_arguments_or_bring_their_own() {
        let map = r#"{"tensor_map":{"buffer":"a.npy","dtype":"fp16","dims":[64],"box":[64]}}"#;
        let buffer_of = |args: &str| match with_args(args).unwrap().args.remove(0) {
            ArgSpec::TensorMap(_, buffer) => buffer,
            other => panic!("{other:?}"),
        };
        let pointer = r#"{"buffer":"a.npy","mode":"inout"}"#;
        assert_eq!(buffer_of(&format!("{map},{pointer}")), MapBuffer::Argument(1));
        let MapBuffer::Own(own) = buffer_of(map) else { panic!("no other argument has it") };
        assert_eq!((own.path.as_str(), own.mode), ("a.npy", Mode::In));
        let output = map.replace("}}", r#"},"mode":"out","expected":"e.npy"}"#);
        let MapBuffer::Own(own) = buffer_of(&output) else { panic!("it says how it is used") };
        assert_eq!((own.mode, own.expected.as_deref()), (Mode::Out, Some("e.npy")));
        let doubtful = map.replace("}}", r#"},"write":"o.npy"}"#);
        assert!(with_args(&format!("{doubtful},{pointer}")).is_err());
    }

    #[test]
    fn clusters_are_read_and_text_after_the_object_is_refused() {
        let error = |text: &str| LaunchFile::parse(text).unwrap_err().to_string();
        let launch = r#"{"grid":[2,1,1],"block":[32,1,1],"cluster":[2,1,1],"args":[]}"#;
        assert_eq!(LaunchFile::parse(launch).unwrap().cluster, [2, 1, 1]);
        assert!(error(&(launch.to_owned() + "x")).contains("trailing"));
        assert!(error(r#"{"grid":[1,1]}"#).contains("`grid"));
    }
}
