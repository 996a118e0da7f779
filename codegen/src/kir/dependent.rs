//! Programmatic dependent launch (CUDA C++ Programming Guide, "Programmatic Dependent Launch and
//! Synchronization"), checked: before a thread has waited for the kernel ahead, it touches only
//! those global buffers that no kernel writes.

use super::{Buffer, Expr, Parameter, Program, Stmt};
use crate::intrinsics::WAIT_AHEAD;

/// Checks a program; `early` names the buffers that need no wait.
pub(super) fn check(program: &Program, early: &[&str]) -> Result<(), String> {
    let late = program.parameters.iter().filter_map(|parameter| match parameter {
        Parameter::Buffer(Buffer { name, .. }) | Parameter::TensorMap(name) => Some(name.as_str()),
        Parameter::Scalar(..) => None,
    });
    let walk = Walk { late: late.filter(|name| !early.contains(name)).collect() };
    walk.body(&program.body, false).map(|_| ())
}

struct Walk<'a> {
    /// Buffers that the kernel ahead may write or read.
    late: Vec<&'a str>,
}

impl Walk<'_> {
    /// Walks statements that begin with or without the wait behind them; tells whether it is behind
    /// them at the end.
    fn body(&self, body: &[Stmt], waited: bool) -> Result<bool, String> {
        body.iter().try_fold(waited, |waited, statement| self.statement(statement, waited))
    }

    fn statement(&self, statement: &Stmt, waited: bool) -> Result<bool, String> {
        if waited {
            return Ok(true);
        }
        match statement {
            Stmt::Let { value, .. } | Stmt::Var { value, .. } => self.values(&[value])?,
            Stmt::Assign { place, value } => self.values(&[place, value])?,
            Stmt::Unpack { value, .. } => self.values(&[value])?,
            Stmt::Store { buffer, index, value } => {
                self.touches(buffer)?;
                self.values(&[index, value])?;
            }
            Stmt::For { from, to, step, body, .. } => {
                self.values(&[from, to, step])?;
                // The loop may not run at all: a wait inside does not count behind it.
                self.body(body, false)?;
            }
            Stmt::If { condition, then, .. } => {
                self.values(&[condition])?;
                self.body(then, false)?;
            }
            Stmt::Roles { is_consumer, producer, consumers, .. } => {
                self.values(&[is_consumer])?;
                let producer = self.body(producer, false)?;
                return Ok(self.body(consumers, false)? && producer);
            }
            Stmt::Do { intrinsic, .. } if *intrinsic == WAIT_AHEAD => return Ok(true),
            Stmt::Do { args, .. } => args.iter().try_for_each(|arg| self.value(arg))?,
            Stmt::Array { .. } | Stmt::Barrier | Stmt::Comment(_) | Stmt::Blank => {}
        }
        Ok(false)
    }

    fn values(&self, values: &[&Expr]) -> Result<(), String> {
        values.iter().try_for_each(|value| self.value(value))
    }

    fn value(&self, value: &Expr) -> Result<(), String> {
        match value {
            Expr::Int(_) | Expr::Hex(_) | Expr::Float(_) => Ok(()),
            Expr::Var(name) => self.touches(name),
            Expr::Element(_, parts) | Expr::Call(_, parts) => {
                parts.iter().try_for_each(|part| self.value(part))
            }
            Expr::Binary(_, a, b) => self.values(&[a, b]),
            Expr::Select(condition, a, b) => self.values(&[condition, a, b]),
            Expr::Cast(_, value) => self.value(value),
            Expr::Load(buffer, index) | Expr::Address(buffer, index) => {
                self.touches(buffer)?;
                self.value(index)
            }
        }
    }

    fn touches(&self, name: &str) -> Result<(), String> {
        match self.late.contains(&name) {
            true => Err(format!("`{name}` is touched before the wait for the kernel ahead")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::{int, load, var, Body, Space, Type};

    fn checked(build: impl FnOnce(&mut Body)) -> Result<(), String> {
        let buffer = |name: &str, space| {
            Parameter::Buffer(Buffer { name: name.into(), space, element: Type::F32 })
        };
        let mut body = Body::new();
        build(&mut body);
        let program = Program {
            header: vec![],
            name: "kernel".into(),
            threads: 32,
            resident: None,
            cluster: [1; 3],
            parameters: vec![
                buffer("weights", Space::GlobalRead),
                buffer("x", Space::GlobalRead),
                buffer("out", Space::GlobalWrite),
                Parameter::TensorMap("map".into()),
            ],
            constants: vec![],
            shared: vec![],
            shared_bytes: 0,
            shared_align: 16,
            body: body.finish(),
        };
        check(&program, &["weights"])
    }

    #[test]
    fn weights_may_be_read_before_the_wait_and_everything_behind_it() {
        let right = checked(|body| {
            body.bind("w", Type::F32, load("weights", int(0)));
            body.call(WAIT_AHEAD, []);
            body.store("out", int(0), load("x", int(0)));
            body.bind("m", Type::F32, var("map"));
        });
        assert_eq!(right, Ok(()));
    }

    #[test]
    fn what_the_kernel_ahead_may_write_or_read_is_named() {
        let found = [
            checked(|body| body.store("out", int(0), load("weights", int(0)))),
            checked(|body| drop(body.bind("a", Type::F32, load("x", int(0)) + 1u32))),
            checked(|body| body.call("copy", [var("map")])),
        ];
        for (name, found) in ["`out`", "`x`", "`map`"].into_iter().zip(found) {
            assert!(found.unwrap_err().contains(name));
        }
    }

    #[test]
    fn a_wait_that_may_not_run_does_not_count() {
        for inside in [true, false] {
            let found = checked(|body| {
                body.range("i", 0u32, 4u32, 1u32, |body, _| {
                    body.call(WAIT_AHEAD, []);
                    if inside {
                        body.store("out", int(0), int(0));
                    }
                });
                if !inside {
                    body.store("out", int(0), int(0));
                }
            });
            assert_eq!(found.is_ok(), inside);
        }
    }
}
