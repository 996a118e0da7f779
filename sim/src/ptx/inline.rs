//! Puts the bodies of device functions in place of their calls.
//!
//! Parameters of a call are variables of the caller (PTX ISA 7.1), here in local memory; the
//! callee's names for them become the caller's. All other variables of a callee get a suffix, so
//! that nothing of the caller is hidden from the code that is put in.

use std::collections::HashMap;

use super::ast::{
    Function, InstructionSyntax, Kernel, ModuleSyntax, Operand, Parameter, Statement,
};
use crate::error::SimError;

/// Deepest nesting of calls; recursion has no end here.
const MAX_CALL_DEPTH: u32 = 32;
/// Most calls of one kernel after inlining.
const MAX_CALLS: u32 = 1 << 12;

/// The kernel without calls.
///
/// # Errors
/// Calls of functions that the module does not define, with other numbers or sizes of parameters,
/// recursive ones, and too many.
pub(crate) fn inline(module: &ModuleSyntax, kernel: &Kernel) -> Result<Kernel, SimError> {
    let mut inliner = Inliner { module, kernel, calls: 0 };
    let body = inliner.statements(&kernel.body, &mut Names::default(), 0)?;
    Ok(Kernel { body, ..kernel.clone() })
}

/// What the names of a body become.
#[derive(Debug, Default)]
struct Names {
    variables: HashMap<String, String>,
    /// Number of the call that is being replaced; `None` in the kernel itself.
    call: Option<u32>,
}

struct Inliner<'m> {
    module: &'m ModuleSyntax,
    kernel: &'m Kernel,
    calls: u32,
}

impl Inliner<'_> {
    fn statements(
        &mut self,
        body: &[Statement],
        names: &mut Names,
        depth: u32,
    ) -> Result<Vec<Statement>, SimError> {
        let mut out = Vec::with_capacity(body.len());
        for statement in body {
            out.push(match statement {
                Statement::Scope(inner) => {
                    let outside = names.variables.clone();
                    let inner = self.statements(inner, names, depth)?;
                    names.variables = outside;
                    Statement::Scope(inner)
                }
                Statement::Variable(variable) => {
                    let mut variable = variable.clone();
                    if let Some(call) = names.call {
                        let unique = format!("{}#{call}", variable.name);
                        names.variables.insert(variable.name, unique.clone());
                        variable.name = unique;
                    }
                    Statement::Variable(variable)
                }
                Statement::Instruction(instruction) => {
                    let renamed = rename(instruction, names);
                    if is(&renamed.opcode, "call") {
                        self.call(&renamed, depth)?
                    } else {
                        Statement::Instruction(self.in_place(renamed, names))
                    }
                }
                other => other.clone(),
            });
        }
        Ok(out)
    }

    /// An ordinary instruction of a body: a return from a callee is a jump behind it, and
    /// parameters of calls are local variables.
    fn in_place(&self, mut instruction: InstructionSyntax, names: &Names) -> InstructionSyntax {
        match names.call {
            Some(call) if is(&instruction.opcode, "ret") => {
                instruction.opcode = instruction.opcode.replacen("ret", "bra", 1);
                instruction.operands = vec![Operand::Name(return_label(call))];
            }
            _ => {}
        }
        let of_kernel = |name: &str| self.kernel.parameters.iter().any(|p| p.name == name);
        let address = instruction.operands.iter().find_map(|operand| match operand {
            Operand::Address { base, .. } => Some(base.as_ref()),
            _ => None,
        });
        let accesses = is(&instruction.opcode, "ld") || is(&instruction.opcode, "st");
        match address {
            Some(Operand::Name(name)) if accesses && !of_kernel(name) => {
                let opcode = instruction.opcode.replacen(".param::func.", ".local.", 1);
                instruction.opcode = opcode.replacen(".param.", ".local.", 1);
            }
            _ => {}
        }
        instruction
    }

    /// The body of the called function with the call's variables for its parameters.
    fn call(&mut self, call: &InstructionSyntax, depth: u32) -> Result<Statement, SimError> {
        let error = |message: String| SimError::parse(call.line, message);
        let [Operand::Vector(returns), Operand::Name(name), Operand::Vector(arguments)] =
            call.operands.as_slice()
        else {
            return Err(error("a call names a function".to_owned()));
        };
        if call.guard.is_some() {
            return Err(error("predicated calls are not supported".to_owned()));
        }
        let Some(function) = self.module.functions.iter().find(|f| f.name == *name) else {
            return failed_assertion(call, name).ok_or_else(|| error(undefined(name)));
        };
        if depth >= MAX_CALL_DEPTH {
            return Err(error(format!("calls nest deeper than {MAX_CALL_DEPTH}: recursion?")));
        }
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return Err(error(format!("more than {MAX_CALLS} calls after inlining")));
        }
        let mut names = Names { call: Some(self.calls), ..Names::default() };
        bind(&mut names, &function.returns, returns).map_err(error)?;
        bind(&mut names, &function.parameters, arguments).map_err(error)?;
        self.body(function, &mut names, depth, call.line)
    }

    fn body(
        &mut self,
        function: &Function,
        names: &mut Names,
        depth: u32,
        line: u32,
    ) -> Result<Statement, SimError> {
        let mut body = self.statements(&function.body, names, depth + 1)?;
        if let Some(call) = names.call {
            body.push(Statement::Label { name: return_label(call), line });
        }
        Ok(Statement::Scope(body))
    }
}

/// Whether an opcode is this one, with any modifiers.
fn is(opcode: &str, base: &str) -> bool {
    opcode.split('.').next() == Some(base)
}

fn return_label(call: u32) -> String {
    format!("return#{call}")
}

/// What a call of the driver's function behind `assert` does here: it traps.
fn failed_assertion(call: &InstructionSyntax, name: &str) -> Option<Statement> {
    (name == "__assertfail").then(|| {
        Statement::Instruction(InstructionSyntax {
            opcode: "trap".to_owned(),
            operands: Vec::new(),
            ..call.clone()
        })
    })
}

/// Why a function that the module only declares cannot be called.
fn undefined(name: &str) -> String {
    let remedy = match name {
        "vprintf" => "; the driver does: take printf out of the kernel",
        "malloc" | "free" => "; the driver does: give the kernel a buffer instead",
        _ => "; link it in",
    };
    format!("the module does not define the function `{name}`{remedy}")
}

fn bind(names: &mut Names, formal: &[Parameter], actual: &[Operand]) -> Result<(), String> {
    if formal.len() != actual.len() {
        return Err(format!("{} parameters in the call, {} declared", actual.len(), formal.len()));
    }
    for (formal, actual) in formal.iter().zip(actual) {
        if let Operand::Name(actual) = actual {
            names.variables.insert(formal.name.clone(), actual.clone());
        }
    }
    Ok(())
}

fn rename(instruction: &InstructionSyntax, names: &Names) -> InstructionSyntax {
    let operands = instruction.operands.iter().map(|operand| renamed(operand, names)).collect();
    InstructionSyntax { operands, ..instruction.clone() }
}

fn renamed(operand: &Operand, names: &Names) -> Operand {
    let new = |name: &String| names.variables.get(name).unwrap_or(name).clone();
    match operand {
        Operand::Name(name) => Operand::Name(new(name)),
        Operand::SymbolOffset { name, offset } => {
            Operand::SymbolOffset { name: new(name), offset: *offset }
        }
        Operand::Vector(elements) => {
            Operand::Vector(elements.iter().map(|element| renamed(element, names)).collect())
        }
        Operand::Address { base, offset, more } => Operand::Address {
            base: Box::new(renamed(base, names)),
            offset: *offset,
            more: more.iter().map(|operand| renamed(operand, names)).collect(),
        },
        other => other.clone(),
    }
}
