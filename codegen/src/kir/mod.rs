//! The kernel IR: structured loops, typed buffers, register arrays, barriers and intrinsics.
//!
//! What a kernel does is decided here and nowhere later: [`verify`] checks it, [`write`] prints
//! it. Expressions are pure; statements load, store, synchronise and call
//! [intrinsics](crate::intrinsics).

mod build;
mod check;
mod cluster;
mod dependent;
mod expr;
mod flow;
mod write;

pub use build::Body;
pub use check::{verify, verify_dependent, KirError};
pub use expr::{call, float, hex, int, load, select, var, BinaryOp, Expr};
pub use write::write;

/// Type of a register value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Signed 32-bit integer: indices and counts.
    I32,
    /// Unsigned 32-bit integer: packed codes, or two packed 16-bit floats.
    U32,
    /// 32-bit float.
    F32,
    /// A byte, as stored.
    U8,
    /// 16 bits of a float, as stored.
    U16,
    /// Truth value.
    Bool,
    /// A barrier in shared memory (PTX ISA, "mbarrier"): only ever passed by address.
    Barrier,
    /// Where a matrix lies in shared memory (PTX ISA, "Matrix Descriptor Format"): only ever passed on.
    Descriptor,
    /// Two 32-bit words.
    U32x2,
    /// Four 32-bit words: one 16-byte access.
    U32x4,
}

impl Type {
    /// Bytes in memory.
    pub fn bytes(self) -> u32 {
        match self {
            Type::Bool | Type::U8 => 1,
            Type::U16 => 2,
            Type::I32 | Type::U32 | Type::F32 => 4,
            Type::U32x2 | Type::Barrier | Type::Descriptor => 8,
            Type::U32x4 => 16,
        }
    }

    /// 32-bit words of a vector type; 1 for scalars.
    pub fn words(self) -> usize {
        match self {
            Type::U32x2 => 2,
            Type::U32x4 => 4,
            _ => 1,
        }
    }
}

/// Where a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// A pointer parameter that the kernel only reads.
    GlobalRead,
    /// A pointer parameter that the kernel writes.
    GlobalWrite,
    /// A view of dynamic shared memory from a byte offset.
    Shared {
        /// Bytes from the start of dynamic shared memory.
        offset: u32,
    },
}

/// A typed view of memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Name in the emitted text.
    pub name: String,
    /// Where it lives.
    pub space: Space,
    /// Element type.
    pub element: Type,
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// `const T name = value;`
    Let {
        /// Name.
        name: String,
        /// Type.
        ty: Type,
        /// Value.
        value: Expr,
    },
    /// A mutable scalar.
    Var {
        /// Name.
        name: String,
        /// Type.
        ty: Type,
        /// Initial value.
        value: Expr,
    },
    /// A register array; every element starts at `init` if given.
    Array {
        /// Name.
        name: String,
        /// Element type.
        ty: Type,
        /// Extents, outermost first.
        dims: Vec<u32>,
        /// Initial value of every element.
        init: Option<Expr>,
    },
    /// `place = value;` where `place` is a variable or an array element.
    Assign {
        /// Target.
        place: Expr,
        /// Value.
        value: Expr,
    },
    /// Splits a vector load into words: `place[0..]` = words of `value`.
    Unpack {
        /// One 32-bit target per word.
        places: Vec<Expr>,
        /// The vector.
        value: Expr,
        /// Its type.
        ty: Type,
    },
    /// `buffer[index] = value;`
    Store {
        /// Buffer name.
        buffer: String,
        /// Element index.
        index: Expr,
        /// Value.
        value: Expr,
    },
    /// A counted loop `for (int var = from; var < to; var += step)`.
    For {
        /// Loop variable.
        var: String,
        /// First value.
        from: Expr,
        /// Bound, exclusive.
        to: Expr,
        /// Increment.
        step: Expr,
        /// Fully unrolled (constant bounds; required when the variable indexes register arrays).
        unroll: bool,
        /// Body.
        body: Vec<Stmt>,
    },
    /// `if (condition) { ... }`
    If {
        /// Condition.
        condition: Expr,
        /// Body.
        then: Vec<Stmt>,
        /// Whether all threads of the block take the same way.
        uniform: bool,
    },
    /// The warps of a block part: consumers compute, the others feed them.
    Roles {
        /// Threads of the consumers: the first of the block, whole warpgroups.
        consumer_threads: u32,
        /// Whether a thread is a consumer.
        is_consumer: Expr,
        /// Body of the producer.
        producer: Vec<Stmt>,
        /// Body of the consumers.
        consumers: Vec<Stmt>,
    },
    /// A barrier of all threads of the role, or of the whole block where roles have not parted.
    Barrier,
    /// A statement intrinsic.
    Do {
        /// Row of the intrinsic table.
        intrinsic: &'static str,
        /// Arguments; places that it writes are passed like values.
        args: Vec<Expr>,
    },
    /// A comment line.
    Comment(String),
    /// An empty line.
    Blank,
}

/// A parameter in declaration order.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// A pointer.
    Buffer(Buffer),
    /// A scalar by value.
    Scalar(String, Type),
    /// A tensor map by value (CUDA driver API, `CUtensorMap`).
    TensorMap(String),
}

/// A whole kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Lines of the header comment.
    pub header: Vec<String>,
    /// Entry name.
    pub name: String,
    /// Threads per block.
    pub threads: u32,
    /// Blocks that the registers of an SM must suffice for: `setmaxnreg` needs a fixed count to start
    /// from, and a block with much shared memory, which the compiler does not see, has few beside
    /// it. Otherwise the compiler guesses how many there are and may spill for their sake.
    pub resident: Option<u32>,
    /// Thread blocks of a cluster along x, y and z of the grid, all 1 for none. Two are.
    pub cluster: [u32; 3],
    /// Parameters.
    pub parameters: Vec<Parameter>,
    /// Named compile-time sizes, for the reader.
    pub constants: Vec<(String, i64)>,
    /// Views of dynamic shared memory.
    pub shared: Vec<Buffer>,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Alignment of dynamic shared memory in bytes.
    pub shared_align: u32,
    /// Body.
    pub body: Vec<Stmt>,
}

impl Program {
    /// Thread blocks of a cluster, 1 for none.
    pub fn cluster_blocks(&self) -> u32 {
        self.cluster.iter().product()
    }

    /// Every buffer, parameters first.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let parameters = self.parameters.iter().filter_map(|p| match p {
            Parameter::Buffer(buffer) => Some(buffer),
            Parameter::Scalar(..) | Parameter::TensorMap(_) => None,
        });
        parameters.chain(&self.shared)
    }
}
