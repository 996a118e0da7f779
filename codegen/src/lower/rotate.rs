//! Rotations: Hadamard transforms of the activations before a multiplication and of its products after it
//! (QuIP#, Tseng et al., ICML 2024, section 3: weights lie between the two).
//!
//! A block has one token's features in shared memory. Sums and differences of features 1, 2, 4 and so on
//! apart make the transform; `1/sqrt(size)` makes it orthonormal.

use super::output::{narrow, widen};
use super::{store_type, Part};
use crate::kernel::{Argument, Role};
use crate::kir::{call, float, load, var, Body, Buffer, Expr, Parameter, Space, Type};
use qtune_ir::{DType, Epilogue, Problem};

/// Threads of a block at most: two features are one addition and one subtraction.
const THREADS_MAX: u32 = 1024;
/// The features of the token in shared memory.
const FEATURES: &str = "features";

/// The function that rotates activations ahead of those that multiply. All functions declare the same
/// shared memory, so its alignment is theirs.
pub(super) fn inputs(problem: &Problem, shared_align: u32) -> Part {
    let act = problem.act;
    let transform = Transform { size: problem.k, name: "K" };
    let body = transform.lower(
        |place, at| widen(act, load("x", place)) * widen(DType::F16, load("factors", at)),
        |body, place, _, value| body.store("turned", place, narrow(act, value)),
    );
    let parameters = vec![
        buffer("x", Space::GlobalRead, store_type(act)),
        buffer("factors", Space::GlobalRead, Type::U16),
        buffer("turned", Space::GlobalWrite, store_type(act)),
    ];
    let arguments = vec![Argument::Activations, Argument::InputFactors, Argument::Prepared];
    transform.part(Role::Turn, arguments, parameters, shared_align, body)
}

/// The function that rotates products, behind those that multiply, and does the rest of `problem`.
pub(super) fn outputs(problem: &Problem, shared_align: u32) -> Part {
    let out = problem.out;
    let residual = problem.epilogue == Epilogue::Residual;
    let transform = Transform { size: problem.n, name: "N" };
    let body = transform.lower(
        |place, _| load("products", place),
        |body, place, at, value| {
            let mut value = value * widen(DType::F16, load("factors", at.clone()));
            if problem.bias {
                value = value + widen(out, load("bias", at.clone()));
            }
            if residual {
                let load = if out == DType::F32 { "load_own_f32" } else { "load_own_u16" };
                let own = call(load, [Expr::address("residual", place.clone())]);
                value = value + widen(out, own);
            }
            body.store("out", place, narrow(out, value));
        },
    );
    let element = store_type(out);
    let all = [
        (Argument::Products, buffer("products", Space::GlobalRead, Type::F32), true),
        (Argument::OutputFactors, buffer("factors", Space::GlobalRead, Type::U16), true),
        (Argument::Bias, buffer("bias", Space::GlobalRead, element), problem.bias),
        (Argument::Residual, buffer("residual", Space::GlobalRead, element), residual),
        (Argument::Output, buffer("out", Space::GlobalWrite, element), true),
    ];
    let needed = all.into_iter().filter(|(_, _, needed)| *needed);
    let (arguments, parameters) = needed.map(|(argument, buffer, _)| (argument, buffer)).unzip();
    transform.part(Role::Finish, arguments, parameters, shared_align, body)
}

fn buffer(name: &str, space: Space, element: Type) -> Parameter {
    Parameter::Buffer(Buffer { name: name.into(), space, element })
}

/// The transform of the features of one token.
struct Transform {
    /// Features, a power of two.
    size: u32,
    /// The constant that holds their number.
    name: &'static str,
}

impl Transform {
    fn threads(&self) -> u32 {
        (self.size / 2).clamp(32, THREADS_MAX)
    }

    /// `value(place, feature)` is a feature before the transform, `store(place, feature, value)` keeps one
    /// after it; `place` counts those of all tokens.
    fn lower(
        &self,
        value: impl Fn(Expr, Expr) -> Expr,
        store: impl Fn(&mut Body, Expr, Expr, Expr),
    ) -> Body {
        let mut body = Body::new();
        let threads = self.threads();
        body.comment("each block: one token");
        let thread = body.bind("thread", Type::I32, var("threadIdx.x"));
        let first = body.bind("first", Type::I32, var("blockIdx.x") * var(self.name));
        body.range("feature", thread.clone(), var(self.name), threads, |body, feature| {
            body.store(FEATURES, feature.clone(), value(first.clone() + feature.clone(), feature));
        });
        body.section("sums and differences of features 1, 2, 4 and so on apart");
        for apart in (0..self.size.ilog2()).map(|level| 1u32 << level) {
            body.barrier();
            body.range("pair", thread.clone(), self.size / 2, threads, |body, pair| {
                let at = pair.clone() / apart * (2 * apart) + pair % apart;
                let low = body.bind("low", Type::I32, at);
                let high = body.bind("high", Type::I32, low.clone() + apart);
                let a = body.bind("a", Type::F32, load(FEATURES, low.clone()));
                let b = body.bind("b", Type::F32, load(FEATURES, high.clone()));
                body.store(FEATURES, low, a.clone() + b.clone());
                body.store(FEATURES, high, a - b);
            });
        }
        body.barrier();
        body.section("orthonormal features leave");
        let unit = 1.0 / f64::from(self.size).sqrt();
        body.range("feature", thread, var(self.name), threads, |body, feature| {
            let value = load(FEATURES, feature.clone()) * float(unit);
            store(body, first + feature.clone(), feature, value);
        });
        body
    }

    fn part(
        &self,
        role: Role,
        arguments: Vec<Argument>,
        parameters: Vec<Parameter>,
        shared_align: u32,
        body: Body,
    ) -> Part {
        let shared = Buffer {
            name: FEATURES.into(),
            space: Space::Shared { offset: 0 },
            element: Type::F32,
        };
        Part {
            role,
            arguments,
            parameters,
            threads: self.threads(),
            resident: None,
            cluster: [1; 3],
            shared_bytes: 4 * self.size,
            shared_align,
            lowered: (body.finish(), vec![shared], Vec::new()),
            library: None,
        }
    }
}
