//! The verifier of kernel IR. It checks, and rejects a program that breaks any of these:
//!
//! - every name is declared once in its scope chain and before its use;
//! - operands, arguments, stores and assignments have the types they need;
//! - buffers exist, read-only ones are not stored to, shared views lie inside the shared bytes;
//! - register arrays are indexed by constants or unrolled loop variables, within their extents:
//!   anything else would put them into local memory;
//! - only declared mutable variables and arrays are assigned;
//! - barriers stand where all threads of the block, or of the consumers, come by; those of a cluster
//!   in programs that have one, around whatever reaches into other blocks: see [`super::cluster`];
//! - a warpgroup's multiplies run in order with what surrounds them: see [`super::flow`];
//! - intrinsics exist, get what they take, and exist on the target.

use super::{BinaryOp, Buffer, Expr, Parameter, Program, Space, Stmt, Type};
use crate::intrinsics::{self, Arg, Intrinsic};
use std::collections::HashMap;

/// A broken rule of the kernel IR: a fault of the generator, not of its input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel IR of `{kernel}`: {what}; this is a fault in the generator, please report it")]
pub struct KirError {
    kernel: String,
    what: String,
}

/// Checks a program for a compute capability.
///
/// # Errors
/// The first broken rule.
pub fn verify(program: &Program, capability: (u8, u8)) -> Result<(), KirError> {
    let mut checker = Checker { program, capability, scopes: vec![HashMap::new()], divergent: 0 };
    let checked = checker.program().and_then(|()| super::flow::check(&program.body));
    let checked = checked.and_then(|()| super::cluster::check(program));
    checked.map_err(|what| KirError { kernel: program.name.clone(), what })
}

/// Checks a program for programmatic dependent launch: until it has waited for the kernel ahead, it
/// touches only the `early` ones of its global buffers.
///
/// # Errors
/// The first buffer that is touched too early.
pub fn verify_dependent(program: &Program, early: &[&str]) -> Result<(), KirError> {
    let checked = super::dependent::check(program, early);
    checked.map_err(|what| KirError { kernel: program.name.clone(), what })
}

#[derive(Clone)]
enum Name {
    Value(Type),
    Mutable(Type),
    Array(Type, Vec<u32>),
    /// Loop variable of an unrolled loop with this many values.
    Unrolled(i64),
    TensorMap,
}

const BUILTINS: [&str; 7] = [
    "threadIdx.x",
    "blockIdx.x",
    "blockIdx.y",
    "blockIdx.z",
    "gridDim.x",
    "gridDim.y",
    "gridDim.z",
];

struct Checker<'a> {
    program: &'a Program,
    capability: (u8, u8),
    scopes: Vec<HashMap<String, Name>>,
    divergent: usize,
}

type Check<T> = Result<T, String>;

fn ensure(condition: bool, what: impl FnOnce() -> String) -> Check<()> {
    if condition {
        Ok(())
    } else {
        Err(what())
    }
}

impl<'a> Checker<'a> {
    fn program(&mut self) -> Check<()> {
        for name in BUILTINS {
            self.declare(name, Name::Value(Type::I32))?;
        }
        for (name, _) in &self.program.constants {
            self.declare(name, Name::Value(Type::I32))?;
        }
        for parameter in &self.program.parameters {
            match parameter {
                Parameter::Scalar(name, ty) => self.declare(name, Name::Value(*ty))?,
                Parameter::TensorMap(name) => self.declare(name, Name::TensorMap)?,
                Parameter::Buffer(buffer) => self.declare(&buffer.name, Name::Value(Type::U32))?,
            }
        }
        for Buffer { name, space, element } in &self.program.shared {
            let Space::Shared { offset } = space else {
                return Err(format!("shared view `{name}` is not in shared memory"));
            };
            ensure(offset % element.bytes() == 0 && *offset <= self.program.shared_bytes, || {
                format!("shared view `{name}` at byte {offset}")
            })?;
            self.declare(name, Name::Value(Type::U32))?;
        }
        self.body(&self.program.body)
    }

    fn declare(&mut self, name: &str, kind: Name) -> Check<()> {
        ensure(self.lookup(name).is_none(), || format!("`{name}` is declared twice"))?;
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.into(), kind);
        }
        Ok(())
    }

    fn lookup(&self, name: &str) -> Option<&Name> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    fn scoped(&mut self, run: impl FnOnce(&mut Self) -> Check<()>) -> Check<()> {
        self.scopes.push(HashMap::new());
        let result = run(self);
        self.scopes.pop();
        result
    }

    fn body(&mut self, body: &[Stmt]) -> Check<()> {
        body.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt) -> Check<()> {
        match statement {
            Stmt::Let { name, ty, value } => {
                self.expect(value, *ty)?;
                self.declare(name, Name::Value(*ty))
            }
            Stmt::Var { name, ty, value } => {
                self.expect(value, *ty)?;
                self.declare(name, Name::Mutable(*ty))
            }
            Stmt::Array { name, ty, dims, init } => {
                ensure(!dims.is_empty() && dims.iter().all(|d| *d > 0), || {
                    format!("array `{name}` of {dims:?}")
                })?;
                if let Some(init) = init {
                    self.expect(init, *ty)?;
                }
                self.declare(name, Name::Array(*ty, dims.clone()))
            }
            Stmt::Assign { place, value } => {
                let ty = self.place(place)?;
                self.expect(value, ty)
            }
            Stmt::Unpack { places, value, ty } => self.unpack(places, value, *ty),
            Stmt::Store { buffer, index, value } => self.store(buffer, index, value),
            Stmt::For { var, from, to, step, unroll, body } => {
                self.for_loop(var, [from, to, step], *unroll, body)
            }
            Stmt::If { condition, then, uniform } => {
                self.expect(condition, Type::Bool)?;
                self.divergent += usize::from(!uniform);
                let result = self.scoped(|c| c.body(then));
                self.divergent -= usize::from(!uniform);
                result
            }
            Stmt::Roles { consumer_threads, is_consumer, producer, consumers } => {
                self.roles(*consumer_threads, is_consumer, producer, consumers)
            }
            Stmt::Barrier => {
                ensure(self.divergent == 0, || "a barrier in a divergent branch".into())
            }
            Stmt::Do { intrinsic, args } => {
                if *intrinsic == intrinsics::CLUSTER_BARRIER {
                    ensure(self.divergent == 0 && self.program.cluster_blocks() > 1, || {
                        format!(
                            "a cluster's barrier among {} blocks",
                            self.program.cluster_blocks()
                        )
                    })?;
                }
                let row = self.intrinsic(intrinsic, args)?;
                ensure(row.result.is_none(), || format!("`{intrinsic}` is not a statement"))
            }
            Stmt::Comment(_) | Stmt::Blank => Ok(()),
        }
    }

    /// A producer may not wait at a barrier: in roles, barriers are the consumers'.
    fn roles(
        &mut self,
        consumer_threads: u32,
        is_consumer: &Expr,
        producer: &[Stmt],
        consumers: &[Stmt],
    ) -> Check<()> {
        self.expect(is_consumer, Type::Bool)?;
        let whole = consumer_threads % 128 == 0 && consumer_threads < self.program.threads;
        ensure(self.divergent == 0 && whole, || {
            format!("{consumer_threads} consumers of {} threads", self.program.threads)
        })?;
        self.divergent += 1;
        let checked = self.scoped(|c| c.body(producer));
        self.divergent -= 1;
        checked?;
        self.scoped(|c| c.body(consumers))
    }

    fn unpack(&mut self, places: &[Expr], value: &Expr, ty: Type) -> Check<()> {
        self.expect(value, ty)?;
        ensure(places.len() == ty.words(), || {
            format!("{} places for {} words", places.len(), ty.words())
        })?;
        for place in places {
            let found = self.place(place)?;
            ensure(found == Type::U32, || format!("a word goes to a place of type {found:?}"))?;
        }
        Ok(())
    }

    fn store(&mut self, buffer: &str, index: &Expr, value: &Expr) -> Check<()> {
        let Buffer { space, element, .. } = self.buffer(buffer)?.clone();
        ensure(space != Space::GlobalRead, || format!("store to read-only `{buffer}`"))?;
        self.expect(index, Type::I32)?;
        self.expect(value, element)
    }

    fn for_loop(
        &mut self,
        var: &str,
        bounds: [&Expr; 3],
        unroll: bool,
        body: &[Stmt],
    ) -> Check<()> {
        for bound in bounds {
            self.expect(bound, Type::I32)?;
        }
        let kind = match (unroll, bounds) {
            (false, _) => Name::Value(Type::I32),
            (true, [Expr::Int(0), Expr::Int(count), Expr::Int(1)]) => Name::Unrolled(*count),
            (true, _) => return Err(format!("loop over `{var}` is unrolled without constants")),
        };
        self.scoped(|c| {
            c.declare(var, kind)?;
            c.body(body)
        })
    }

    fn buffer(&self, name: &str) -> Check<&'a Buffer> {
        let found = self.program.buffers().find(|buffer| buffer.name == name);
        found.ok_or_else(|| format!("no buffer `{name}`"))
    }

    fn expect(&self, expr: &Expr, wanted: Type) -> Check<()> {
        let found = self.type_of(expr)?;
        ensure(found == wanted, || format!("{expr:?} is {found:?} where {wanted:?} is needed"))
    }

    fn place(&self, place: &Expr) -> Check<Type> {
        match place {
            Expr::Var(name) => match self.lookup(name) {
                Some(Name::Mutable(ty)) => Ok(*ty),
                _ => Err(format!("`{name}` is not a mutable variable")),
            },
            Expr::Element(..) => self.type_of(place),
            _ => Err(format!("{place:?} is not a place")),
        }
    }

    fn type_of(&self, expr: &Expr) -> Check<Type> {
        match expr {
            Expr::Int(_) => Ok(Type::I32),
            Expr::Hex(_) => Ok(Type::U32),
            Expr::Float(_) => Ok(Type::F32),
            Expr::Var(name) => match self.lookup(name) {
                Some(Name::Value(ty) | Name::Mutable(ty)) => Ok(*ty),
                Some(Name::Unrolled(_)) => Ok(Type::I32),
                Some(Name::Array(..)) => Err(format!("array `{name}` without indices")),
                Some(Name::TensorMap) => Err(format!("tensor map `{name}` as a value")),
                None => Err(format!("`{name}` is not declared")),
            },
            Expr::Element(name, indices) => self.element(name, indices),
            Expr::Binary(op, a, b) => self.binary(*op, a, b),
            Expr::Select(condition, a, b) => {
                self.expect(condition, Type::Bool)?;
                let ty = self.type_of(a)?;
                self.expect(b, ty)?;
                Ok(ty)
            }
            Expr::Cast(ty, value) => {
                self.type_of(value)?;
                ensure(ty.words() == 1, || format!("cast to {ty:?}"))?;
                Ok(*ty)
            }
            Expr::Load(buffer, index) => {
                self.expect(index, Type::I32)?;
                Ok(self.buffer(buffer)?.element)
            }
            Expr::Address(..) => Err("an address outside of an intrinsic's arguments".into()),
            Expr::Call(name, args) => {
                let row = self.intrinsic(name, args)?;
                row.result.ok_or_else(|| format!("`{name}` has no value"))
            }
        }
    }

    fn element(&self, name: &str, indices: &[Expr]) -> Check<Type> {
        let Some(Name::Array(ty, dims)) = self.lookup(name) else {
            return Err(format!("`{name}` is not an array"));
        };
        ensure(dims.len() == indices.len(), || format!("`{name}` has {} extents", dims.len()))?;
        self.indices(name, indices, dims)?;
        Ok(*ty)
    }

    fn indices(&self, name: &str, indices: &[Expr], dims: &[u32]) -> Check<()> {
        for (index, extent) in indices.iter().zip(dims) {
            let largest = self.largest(index);
            let inside = largest.is_some_and(|largest| largest < i64::from(*extent));
            ensure(inside, || format!("index {index:?} of `{name}` (extent {extent})"))?;
        }
        Ok(())
    }

    /// A row of an array: every extent but the last is indexed.
    fn accumulators(&self, name: &str, indices: &[Expr], (ty, count): (Type, u32)) -> Check<()> {
        match self.lookup(name) {
            Some(Name::Array(found, dims)) if *found == ty && dims.last() == Some(&count) => {
                ensure(dims.len() == indices.len() + 1, || format!("`{name}` is not a row"))?;
                self.indices(name, indices, dims)
            }
            _ => Err(format!("`{name}` is no array of {count} {ty:?}")),
        }
    }

    /// The largest value of an index made of constants and unrolled loop variables; `None` for
    /// anything else.
    fn largest(&self, index: &Expr) -> Option<i64> {
        match index {
            Expr::Int(value) if *value >= 0 => Some(*value),
            Expr::Var(name) => match self.lookup(name) {
                Some(Name::Unrolled(count)) => Some(count - 1),
                _ => None,
            },
            Expr::Binary(BinaryOp::Add, a, b) => Some(self.largest(a)? + self.largest(b)?),
            Expr::Binary(BinaryOp::Mul, a, b) => Some(self.largest(a)? * self.largest(b)?),
            Expr::Binary(op, a, b) => match (op, &**b) {
                (BinaryOp::Div, Expr::Int(by)) if *by > 0 => Some(self.largest(a)? / by),
                (BinaryOp::Rem, Expr::Int(by)) if *by > 0 => Some(self.largest(a)?.min(by - 1)),
                _ => None,
            },
            _ => None,
        }
    }

    fn binary(&self, op: BinaryOp, a: &Expr, b: &Expr) -> Check<Type> {
        use BinaryOp::*;
        let (left, right) = (self.type_of(a)?, self.type_of(b)?);
        let shift = matches!(op, Shl | Shr) && right == Type::I32;
        ensure(left == right || shift, || format!("{left:?} {op:?} {right:?}"))?;
        let allowed = match op {
            And | Or => left == Type::Bool,
            Add | Sub | Mul | Div | Less | Equal => {
                matches!(left, Type::I32 | Type::U32 | Type::F32)
            }
            Rem | Shl | Shr | BitAnd | BitOr | BitXor => matches!(left, Type::I32 | Type::U32),
        };
        ensure(allowed, || format!("{op:?} on {left:?}"))?;
        Ok(if matches!(op, Less | Equal | And | Or) { Type::Bool } else { left })
    }

    fn intrinsic(&self, name: &str, args: &[Expr]) -> Check<&'static Intrinsic> {
        let row = intrinsics::find(name).ok_or_else(|| format!("no intrinsic `{name}`"))?;
        ensure(row.capability <= self.capability, || {
            format!("`{name}` needs compute capability {:?}", row.capability)
        })?;
        ensure(args.len() == row.args.len(), || format!("`{name}` takes {}", row.args.len()))?;
        for (arg, kind) in args.iter().zip(row.args) {
            self.argument(name, arg, *kind)?;
        }
        Ok(row)
    }

    fn argument(&self, name: &str, arg: &Expr, kind: Arg) -> Check<()> {
        match (kind, arg) {
            (Arg::In(ty), _) => self.expect(arg, ty),
            (Arg::InOut(ty) | Arg::Out(ty), _) => {
                let found = self.place(arg)?;
                ensure(found == ty, || format!("`{name}` writes {ty:?} to {found:?}"))
            }
            (Arg::Constant, Expr::Int(_)) => Ok(()),
            (Arg::Accumulators(ty, count), Expr::Element(array, indices)) => {
                self.accumulators(array, indices, (ty, count))
            }
            (Arg::TensorMap, Expr::Var(map)) => {
                let found = matches!(self.lookup(map), Some(Name::TensorMap));
                ensure(found, || format!("`{map}` is no tensor map"))
            }
            (Arg::Global | Arg::Shared, Expr::Address(buffer, index)) => {
                self.expect(index, Type::I32)?;
                let shared = matches!(self.buffer(buffer)?.space, Space::Shared { .. });
                ensure(shared == (kind == Arg::Shared), || format!("`{name}` on `{buffer}`"))
            }
            _ => Err(format!("`{name}` with {arg:?} as {kind:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::{call, hex, int, load, var, Body};

    fn program(build: impl FnOnce(&mut Body)) -> Program {
        let mut body = Body::new();
        build(&mut body);
        let x = Buffer { name: "x".into(), space: Space::GlobalRead, element: Type::F32 };
        Program {
            header: vec![],
            name: "test".into(),
            threads: 32,
            resident: None,
            cluster: [1; 3],
            parameters: vec![Parameter::Buffer(x)],
            constants: vec![],
            shared: vec![],
            shared_bytes: 0,
            shared_align: 16,
            body: body.finish(),
        }
    }

    fn why(build: impl FnOnce(&mut Body)) -> String {
        verify(&program(build), (8, 0)).unwrap_err().to_string()
    }

    #[test]
    fn each_rule_rejects_the_program_that_breaks_it() {
        assert!(why(|b| b.assign(var("y"), hex(0))).contains("not a mutable"));
        assert!(why(|b| b.store("x", int(0), crate::kir::float(1.0))).contains("read-only"));
        assert!(why(|b| {
            b.bind("i", Type::I32, int(1));
            b.bind("i", Type::I32, int(2));
        })
        .contains("twice"));
        assert!(why(|b| {
            b.bind("i", Type::F32, int(1));
        })
        .contains("F32"));
        assert!(
            why(|b| b.when(var("threadIdx.x").equals(0u32), |b| b.barrier())).contains("divergent")
        );
        assert!(why(|b| {
            b.zeros("acc", Type::F32, &[2]);
            b.unrolled("i", 3, |b, i| {
                b.assign(Expr::at("acc", [i]), load("x", int(0)));
            });
        })
        .contains("extent 2"));
        assert!(why(|b| {
            b.zeros("acc", Type::F32, &[32]);
            b.assign(Expr::at("acc", [var("threadIdx.x")]), load("x", int(0)));
        })
        .contains("index"));
        assert!(why(|b| {
            b.bind("a", Type::U32, call("no_such", []));
        })
        .contains("no intrinsic"));
    }

    #[test]
    fn a_barrier_of_a_cluster_needs_a_cluster() {
        let barrier = |b: &mut Body| b.call(intrinsics::CLUSTER_BARRIER, []);
        let error = verify(&program(barrier), (9, 0)).unwrap_err().to_string();
        assert!(error.contains("among 1 blocks"), "{error}");
        let cluster = Program { cluster: [1, 1, 4], ..program(barrier) };
        assert_eq!(verify(&cluster, (9, 0)), Ok(()));
        let divergent = program(|b| b.when(var("threadIdx.x").equals(0u32), barrier));
        assert!(verify(&Program { cluster: [1, 1, 4], ..divergent }, (9, 0)).is_err());
    }

    fn roles(
        threads: u32,
        producer: impl FnOnce(&mut Body),
        consumers: impl FnOnce(&mut Body),
    ) -> Result<(), KirError> {
        let build = |b: &mut Body| {
            let is_consumer = var("threadIdx.x").less(threads);
            b.roles(threads, is_consumer, producer, consumers);
        };
        let space = Space::Shared { offset: 0 };
        let shared = vec![Buffer { name: "tile".into(), space, element: Type::U32x4 }];
        verify(&Program { threads: 160, shared, ..program(build) }, (9, 0))
    }

    #[test]
    fn consumers_may_meet_at_a_barrier_and_a_producer_may_not() {
        assert_eq!(roles(128, |_| {}, Body::barrier), Ok(()));
        let error = roles(128, Body::barrier, |_| {}).unwrap_err().to_string();
        assert!(error.contains("divergent"), "{error}");
        let error = roles(96, |_| {}, |_| {}).unwrap_err().to_string();
        assert!(error.contains("96 consumers of 160 threads"), "{error}");
    }

    #[test]
    fn a_multiply_takes_as_many_accumulators_as_its_columns_need() {
        let multiply = |dims: [u32; 2]| {
            move |b: &mut Body| {
                b.array("sums", Type::F32, &dims);
                let keep = int(0).less(int(1));
                let mut args = vec![Expr::at("sums", [int(0)])];
                args.extend(vec![hex(0); 4]);
                args.extend([call("tile_128b", [Expr::address("tile", int(0))]), int(0), keep]);
                b.call(crate::intrinsics::FENCE, []);
                b.call(crate::intrinsics::multiply_name("bf16", 16), args);
                b.call(crate::intrinsics::COMMIT, []);
                b.call(crate::intrinsics::WAIT, [int(0)]);
            }
        };
        assert_eq!(roles(128, |_| {}, multiply([1, 8])), Ok(()));
        let error = roles(128, |_| {}, multiply([1, 4])).unwrap_err().to_string();
        assert!(error.contains("no array of 8 F32"), "{error}");
    }

    #[test]
    fn a_well_formed_program_passes() {
        let good = program(|b| {
            b.zeros("acc", Type::F32, &[2]);
            b.unrolled("i", 2, |b, i| {
                let value = load("x", i.clone());
                b.assign(Expr::at("acc", [i.clone()]), Expr::at("acc", [i]) + value);
            });
            b.barrier();
        });
        assert_eq!(verify(&good, (8, 0)), Ok(()));
    }
}
