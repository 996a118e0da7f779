//! The syntax tree of a PTX module: names are still text, nothing is resolved.

/// State space of a variable (PTX ISA 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VariableSpace {
    Global,
    Const,
    Shared,
    Local,
}

/// A fundamental type as a variable or register is declared with it: kind letter and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarType {
    /// Predicate.
    Pred,
    /// Anything held in `bits` bits: `.b32`, `.u32`, `.s32`, `.f32`, `.f16x2`, ...
    Bits(u32),
}

impl ScalarType {
    /// The type named by a directive such as `.b32`.
    pub(crate) fn from_directive(word: &str) -> Option<ScalarType> {
        Some(match word {
            ".pred" => ScalarType::Pred,
            ".b8" | ".u8" | ".s8" => ScalarType::Bits(8),
            ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => ScalarType::Bits(16),
            ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => ScalarType::Bits(32),
            ".b64" | ".u64" | ".s64" | ".f64" | ".f32x2" => ScalarType::Bits(64),
            ".b128" => ScalarType::Bits(128),
            _ => return None,
        })
    }

    /// Bytes of one element in memory; predicates have none.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            ScalarType::Pred => 0,
            ScalarType::Bits(bits) => u64::from(bits / 8),
        }
    }
}

/// An array or scalar in a memory space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub space: VariableSpace,
    pub name: String,
    pub align: u64,
    /// Size in bytes; 0 for `.extern .shared x[]`, the dynamic part.
    pub bytes: u64,
    /// Initial bytes, shorter than `bytes` when the rest is zero; `None` without initializer.
    pub init: Option<Vec<u8>>,
    pub line: u32,
}

/// A kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub name: String,
    pub align: u64,
    pub bytes: u64,
}

/// Declaration `.reg .b32 %r<count>;` or, without count, one register of that very name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegisterRange {
    pub ty: ScalarType,
    pub name: String,
    pub count: Option<u32>,
    pub line: u32,
}

/// A source position from `.loc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SourcePosition {
    pub file: u32,
    pub line: u32,
}

/// An operand as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// Register, special register, symbol or label.
    Name(String),
    /// `!%p`.
    Negated(String),
    /// `_`.
    Sink,
    /// Integer literal; negative ones are sign-extended.
    Int(i128),
    /// `0fXXXXXXXX` bits.
    Float32(u32),
    /// `0dXXXXXXXXXXXXXXXX` bits, or a decimal with a point.
    Float64(u64),
    /// `{a, b, ...}`.
    Vector(Vec<Operand>),
    /// `a|b`.
    Pair(Box<Operand>, Box<Operand>),
    /// `[base + offset]`, with further bracketed operands after a comma (tensor coordinates).
    Address { base: Box<Operand>, offset: i64, more: Vec<Operand> },
    /// `name + offset` outside brackets.
    SymbolOffset { name: String, offset: i64 },
}

/// One instruction as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InstructionSyntax {
    /// Guard predicate and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// Opcode with all modifiers, `add.s32`.
    pub opcode: String,
    pub operands: Vec<Operand>,
    pub line: u32,
    pub source: Option<SourcePosition>,
}

/// A statement of a function body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Statement {
    Scope(Vec<Statement>),
    Registers(RegisterRange),
    Variable(Variable),
    Label {
        name: String,
        line: u32,
    },
    /// `name: .branchtargets a, b, c;`
    BranchTargets {
        name: String,
        labels: Vec<String>,
        line: u32,
    },
    Instruction(InstructionSyntax),
}

/// A `.entry`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kernel {
    pub name: String,
    pub parameters: Vec<Parameter>,
    /// `.maxntid`, missing axes as 1.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`, missing axes as 1.
    pub required_threads: Option<[u32; 3]>,
    /// `.maxnreg`.
    pub max_registers: Option<u32>,
    /// `.minnctapersm`.
    pub min_blocks: Option<u32>,
    /// `.reqnctapercluster`, missing axes as 1.
    pub required_cluster: Option<[u32; 3]>,
    /// `.maxclusterrank`.
    pub max_cluster_rank: Option<u32>,
    /// `.explicitcluster`.
    pub explicit_cluster: bool,
    pub body: Vec<Statement>,
}

/// A `.func` with a body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Function {
    pub name: String,
    /// Results, at most one.
    pub returns: Vec<Parameter>,
    pub parameters: Vec<Parameter>,
    pub body: Vec<Statement>,
}

/// A whole module.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ModuleSyntax {
    /// Text after `.target`, for example `sm_90a`.
    pub target: String,
    pub variables: Vec<Variable>,
    pub kernels: Vec<Kernel>,
    pub functions: Vec<Function>,
    /// Source files by the number `.loc` uses.
    pub files: Vec<(u32, String)>,
}
