//! Walks a kernel's statements and produces its [`Program`].

use std::collections::HashMap;

use super::operands::Operands;
use super::operands::{NameLookup, Names};
use super::scope::{File, Files, Scope};
use super::sharing::Places;
use super::symbols::{layout, SymbolAddress};
use super::table;
use super::targets::Target;
use crate::cfg;
use crate::dataflow::Definite;
use crate::error::SimError;
use crate::exec::{undefined, wgmma};
use crate::program::{Instruction, Op, PredicateSource, Program, Slot, Tracking, NO_PC};
use crate::ptx::ast::{InstructionSyntax, Kernel, ModuleSyntax, Statement};

/// Most instructions of one kernel; program counters stay well inside 32 bits.
const MAX_INSTRUCTIONS: usize = 1 << 24;

/// Decodes one kernel of a module.
pub(crate) fn lower(module: &ModuleSyntax, kernel: &Kernel) -> Result<Program, SimError> {
    let program = lower_into(module, kernel, Places::default())?;
    let computes = |instruction: &Instruction| undefined::computes(instruction.op);
    let Some(definite) = Definite::new(&program, computes) else { return Ok(program) };
    let concerned = wgmma::concerned(&program);
    let apart = |register: usize| definite.tracked[register] || concerned[register];
    let Some(places) = Places::new(&program, apart) else { return Ok(program) };
    let mut program = lower_into(module, kernel, places)?;
    for (instruction, tracking) in program.code.iter_mut().zip(definite.tracking) {
        instruction.tracking = tracking;
    }
    Ok(program)
}

/// Decodes one kernel with given places of its registers.
fn lower_into(module: &ModuleSyntax, kernel: &Kernel, places: Places) -> Result<Program, SimError> {
    let layout = layout(module, kernel)?;
    let body_addresses = layout.body_addresses.clone();
    let names =
        Names { scopes: Vec::new(), files: Files::new(places), layout, specials: HashMap::new() };
    let mut lowering = Lowering {
        names,
        body_addresses,
        next_variable: 0,
        code: Vec::new(),
        uses: Vec::new(),
        label_targets: Vec::new(),
        tables: Vec::new(),
        target: Target::parse(&module.target),
    };
    lowering.scope(&kernel.body)?;
    lowering.finish(module, kernel)
}

/// Registers read and registers written.
type Uses = (Vec<(File, Slot)>, Vec<(File, Slot)>);

struct Lowering<'a> {
    names: Names<'a>,
    /// Addresses of the variables declared in the body, in statement order.
    body_addresses: Vec<SymbolAddress>,
    next_variable: usize,
    code: Vec<Instruction>,
    /// By instruction.
    uses: Vec<Uses>,
    /// Program counter of each label number.
    label_targets: Vec<u32>,
    /// Label numbers, later program counters, of each `.branchtargets`.
    tables: Vec<Vec<u32>>,
    target: Option<Target>,
}

impl<'a> Lowering<'a> {
    /// Opens a scope: all its labels and declarations are visible in all its statements, forward
    /// references included.
    fn scope(&mut self, body: &'a [Statement]) -> Result<(), SimError> {
        let scope = self.declarations(body)?;
        self.names.scopes.push(scope);
        self.fill_tables(body)?;
        for statement in body {
            match statement {
                Statement::Scope(inner) => self.scope(inner)?,
                Statement::Label { name, .. } => {
                    let label = self.names.label(name);
                    if let Some(target) = label.and_then(|l| self.label_targets.get_mut(l as usize))
                    {
                        *target = self.code.len() as u32;
                    }
                }
                Statement::Instruction(syntax) => self.instruction(syntax)?,
                Statement::Variable(_) => self.next_variable += 1,
                Statement::Registers(_) | Statement::BranchTargets { .. } => {}
            }
        }
        self.names.scopes.pop();
        Ok(())
    }

    /// Looks up the labels of the `.branchtargets` of the scope that was opened last.
    fn fill_tables(&mut self, body: &'a [Statement]) -> Result<(), SimError> {
        for statement in body {
            let Statement::BranchTargets { name, labels, line } = statement else { continue };
            let number = |label: &String| {
                let unknown = || SimError::parse(*line, format!("label `{label}` is not in scope"));
                self.names.label(label).ok_or_else(unknown)
            };
            let numbers = labels.iter().map(number).collect::<Result<Vec<u32>, SimError>>()?;
            if let Some(table) = self.names.table(name) {
                self.tables[table as usize] = numbers;
            }
        }
        Ok(())
    }

    fn declarations(&mut self, body: &'a [Statement]) -> Result<Scope<'a>, SimError> {
        let mut scope = Scope::default();
        // `body_addresses` is in textual order, so the variables of nested scopes are counted in.
        let mut variable = self.next_variable;
        for statement in body {
            match statement {
                Statement::Registers(range) => {
                    if scope.declare(range, &mut self.names.files).is_none() {
                        return Err(SimError::parse(range.line, "too many registers"));
                    }
                }
                Statement::Label { name, line } => {
                    let label = self.label_targets.len() as u32;
                    self.label_targets.push(NO_PC);
                    if scope.labels.insert(name, label).is_some() {
                        return Err(SimError::parse(*line, format!("label `{name}` twice")));
                    }
                }
                Statement::Variable(declared) => {
                    if let Some(&address) = self.body_addresses.get(variable) {
                        scope.variables.insert(&declared.name, address);
                    }
                    variable += 1;
                }
                Statement::BranchTargets { name, line, .. } => {
                    let table = self.tables.len() as u32;
                    self.tables.push(Vec::new());
                    if scope.tables.insert(name, table).is_some() {
                        return Err(SimError::parse(*line, format!("targets `{name}` twice")));
                    }
                }
                Statement::Scope(inner) => variable += variable_count(inner),
                Statement::Instruction(_) => {}
            }
        }
        Ok(scope)
    }

    fn instruction(&mut self, syntax: &InstructionSyntax) -> Result<(), SimError> {
        let error = |reason: String| SimError::Decode {
            line: syntax.line,
            instruction: syntax.opcode.clone(),
            reason,
        };
        if self.code.len() >= MAX_INSTRUCTIONS {
            return Err(error(format!("the kernel has more than {MAX_INSTRUCTIONS} instructions")));
        }
        let (row, modifiers) = table::find(&syntax.opcode).map_err(error)?;
        if let Some(target) = self.target {
            target.check(&syntax.opcode).map_err(error)?;
        }
        let guard = self.guard(syntax)?;
        let mut operands = Operands::new(&mut self.names, syntax);
        let op = (row.build)(&mut operands, &modifiers)?;
        let (reads, writes) = (operands.reads, operands.writes);
        let propagates_undefined = operands.propagates_undefined;
        let class = operands.class.unwrap_or(row.class);
        let counts = (u8::try_from(reads.len()), u8::try_from(writes.len()));
        let (Ok(read_count), Ok(write_count)) = counts else {
            return Err(error("too many operands".to_owned()));
        };
        self.code.push(Instruction {
            op,
            guard,
            class,
            reconverge: NO_PC,
            propagates_undefined,
            touches_wgmma: false,
            tracking: Tracking::Full,
            straight: is_straight(op),
            operands_start: 0,
            reads: read_count,
            writes: write_count,
            line: syntax.line,
            source: syntax.source,
        });
        self.uses.push((reads, writes));
        Ok(())
    }

    fn guard(&mut self, syntax: &InstructionSyntax) -> Result<Option<PredicateSource>, SimError> {
        let Some((name, negated)) = &syntax.guard else { return Ok(None) };
        match self.names.register(name) {
            Some(Some(register)) if register.file == File::Predicate => {
                Ok(Some(PredicateSource { slot: register.slot, negated: *negated }))
            }
            _ => Err(SimError::parse(syntax.line, format!("`{name}` is not a predicate register"))),
        }
    }

    fn finish(mut self, module: &ModuleSyntax, kernel: &Kernel) -> Result<Program, SimError> {
        self.patch_branches()?;
        let files = &self.names.files;
        let counts = [File::R32, File::R64, File::Predicate].map(|file| files.count(file));
        let operands = flatten_uses(&mut self.code, &self.uses, counts);
        cfg::set_reconvergence(&mut self.code, &self.tables);
        let layout = self.names.layout;
        let small = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut program = Program {
            name: kernel.name.clone(),
            code: self.code,
            tables: self.tables,
            operands,
            count32: counts[0],
            count64: counts[1],
            count_predicates: counts[2],
            constants32: sorted(files.constants32.iter().map(|(&v, &s)| (s, v))),
            constants64: sorted(files.constants64.iter().map(|(&v, &s)| (s, v))),
            constant_predicates: sorted(files.constant_predicates.iter().map(|(&v, &s)| (s, v))),
            specials: self.names.specials.iter().map(|(&special, &slot)| (slot, special)).collect(),
            parameters: layout.parameters,
            parameter_bytes: layout.parameter_bytes,
            static_shared_bytes: small(layout.static_shared_bytes),
            dynamic_shared_offset: small(layout.dynamic_shared_offset),
            local_bytes: small(layout.local_bytes),
            constant_bank: layout.constant_bank,
            globals: layout.globals,
            max_threads: kernel.max_threads,
            required_threads: kernel.required_threads,
            max_registers: kernel.max_registers,
            min_blocks: kernel.min_blocks,
            required_cluster: kernel.required_cluster,
            max_cluster_rank: kernel.max_cluster_rank,
            explicit_cluster: kernel.explicit_cluster,
            files: module.files.clone(),
        };
        wgmma::mark_operands(&mut program);
        Ok(program)
    }

    /// Replaces label numbers by program counters. A branch to the end of the body leaves it.
    fn patch_branches(&mut self) -> Result<(), SimError> {
        let end = self.code.len() as u32;
        for instruction in &mut self.code {
            let targets = match &mut instruction.op {
                Op::Branch { target, .. } => std::slice::from_mut(target),
                _ => continue,
            };
            place_labels(&self.label_targets, targets, end, instruction.line)?;
        }
        for table in &mut self.tables {
            place_labels(&self.label_targets, table, end, 1)?;
        }
        // Falling off the end is a return; a branch there needs an instruction to land on.
        let line = self.code.last().map_or(0, |i| i.line);
        self.code.push(Instruction {
            op: Op::Exit,
            guard: None,
            class: crate::counters::Class::Branch,
            reconverge: NO_PC,
            propagates_undefined: false,
            touches_wgmma: false,
            tracking: Tracking::Full,
            straight: false,
            operands_start: 0,
            reads: 0,
            writes: 0,
            line,
            source: None,
        });
        self.uses.push((Vec::new(), Vec::new()));
        Ok(())
    }
}

/// Replaces label numbers by program counters up to `end`.
fn place_labels(places: &[u32], labels: &mut [u32], end: u32, line: u32) -> Result<(), SimError> {
    for label in labels {
        *label = match places.get(*label as usize) {
            Some(&pc) if pc <= end => pc,
            _ => return Err(SimError::parse(line, "branch to nowhere")),
        };
    }
    Ok(())
}

/// Whether an operation leaves the flow of control alone. Not all that do are told apart, but those
/// that loops are made of.
fn is_straight(op: Op) -> bool {
    undefined::computes(op)
        || matches!(
            op,
            Op::Load(_)
                | Op::Store(_)
                | Op::Ldmatrix { .. }
                | Op::Mma(_)
                | Op::CpAsync(_)
                | Op::CpAsyncCommit
                | Op::CpAsyncWait { .. }
                | Op::Shuffle { .. }
        )
}

fn variable_count(body: &[Statement]) -> usize {
    body.iter()
        .map(|statement| match statement {
            Statement::Variable(_) => 1,
            Statement::Scope(inner) => variable_count(inner),
            _ => 0,
        })
        .sum()
}

/// Constants in slot order, so that decoding is the same on every run.
fn sorted<T: Copy>(pairs: impl Iterator<Item = (Slot, T)>) -> Vec<(Slot, T)> {
    let mut pairs: Vec<(Slot, T)> = pairs.collect();
    pairs.sort_by_key(|&(slot, _)| slot);
    pairs
}

/// Turns (file, slot) into definedness indices, reads before writes, and links the instructions.
fn flatten_uses(code: &mut [Instruction], uses: &[Uses], counts: [usize; 3]) -> Vec<u32> {
    let mut operands = Vec::new();
    let index = |&(file, slot): &(File, Slot)| {
        let base = match file {
            File::R32 => 0,
            File::R64 => counts[0],
            File::Predicate => counts[0] + counts[1],
        };
        (base + slot as usize) as u32
    };
    for (instruction, (reads, writes)) in code.iter_mut().zip(uses) {
        instruction.operands_start = operands.len() as u32;
        operands.extend(reads.iter().map(index));
        operands.extend(writes.iter().map(index));
    }
    operands
}
