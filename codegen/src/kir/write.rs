//! The writer: kernel IR to CUDA C++ text. It prints; it decides nothing.

use super::{Buffer, Expr, Parameter, Program, Space, Stmt, Type};
use crate::intrinsics::{self, Arg};
use crate::kir::BinaryOp;
use std::collections::BTreeSet;
use std::fmt::Write;

/// CUDA C++ text of verified programs of one schedule, in order. They share a header, helpers and
/// constants: a name means the same in all of them.
pub fn write(programs: &[Program]) -> String {
    let mut writer = Writer { text: String::new(), indent: 0, role_threads: None };
    writer.preamble(programs);
    programs.iter().for_each(|program| writer.program(program));
    writer.text
}

fn type_name(ty: Type) -> &'static str {
    match ty {
        Type::I32 => "int",
        Type::U32 => "unsigned",
        Type::F32 => "float",
        Type::U8 => "unsigned char",
        Type::U16 => "unsigned short",
        Type::Bool => "bool",
        Type::Barrier | Type::Descriptor => "unsigned long long",
        Type::U32x2 => "uint2",
        Type::U32x4 => "uint4",
    }
}

/// C++ precedence, larger binds tighter.
fn precedence(op: BinaryOp) -> u8 {
    use BinaryOp::*;
    match op {
        Mul | Div | Rem => 10,
        Add | Sub => 9,
        Shl | Shr => 8,
        Less => 7,
        Equal => 6,
        BitAnd => 5,
        BitXor => 4,
        BitOr => 3,
        And => 2,
        Or => 1,
    }
}

fn symbol(op: BinaryOp) -> &'static str {
    use BinaryOp::*;
    match op {
        Add => "+",
        Sub => "-",
        Mul => "*",
        Div => "/",
        Rem => "%",
        Shl => "<<",
        Shr => ">>",
        BitAnd => "&",
        BitOr => "|",
        BitXor => "^",
        Less => "<",
        Equal => "==",
        And => "&&",
        Or => "||",
    }
}

/// Hardware barrier of a role; number 0 is the whole block's.
const ROLE_BARRIER: u32 = 1;

struct Writer {
    text: String,
    indent: usize,
    /// Threads that meet at a barrier, where that is not the whole block.
    role_threads: Option<u32>,
}

impl Writer {
    fn line(&mut self, text: impl AsRef<str>) {
        let text = text.as_ref();
        if !text.is_empty() {
            self.text.extend(std::iter::repeat_n(' ', self.indent * 2));
        }
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn block(&mut self, head: String, body: impl FnOnce(&mut Writer)) {
        self.line(format!("{head} {{"));
        self.indent += 1;
        body(self);
        self.indent -= 1;
        self.line("}");
    }

    fn preamble(&mut self, programs: &[Program]) {
        for line in programs.iter().take(1).flat_map(|program| &program.header) {
            self.line(format!("// {line}"));
        }
        self.line("");
        let mut parameters = programs.iter().flat_map(|program| &program.parameters);
        if parameters.any(|p| matches!(p, Parameter::TensorMap(_))) {
            self.line("struct alignas(64) TensorMap { unsigned long long opaque[16]; };");
            self.line("");
        }
        self.helpers(programs);
        let mut written = BTreeSet::new();
        for (name, value) in programs.iter().flat_map(|program| &program.constants) {
            if written.insert(name) {
                self.line(format!("constexpr int {name} = {value};"));
            }
        }
    }

    fn program(&mut self, program: &Program) {
        self.line("");
        let bounds = match program.resident {
            Some(blocks) => format!("{}, {blocks}", program.threads),
            None => program.threads.to_string(),
        };
        let cluster = match program.cluster {
            [1, 1, 1] => String::new(),
            [x, y, z] => format!("__cluster_dims__({x}, {y}, {z}) "),
        };
        self.line(format!("extern \"C\" __global__ void {cluster}__launch_bounds__({bounds})"));
        let parameters: Vec<String> = program.parameters.iter().map(parameter).collect();
        let head = format!("{}({})", program.name, parameters.join(",\n    "));
        self.block(head, |w| {
            w.shared(program);
            w.statements(&program.body);
        });
    }

    fn helpers(&mut self, programs: &[Program]) {
        let mut used = BTreeSet::new();
        programs.iter().for_each(|program| calls(&program.body, &mut used));
        for row in intrinsics::all().filter(|row| used.contains(row.name)) {
            let qualified = "static __device__ __forceinline__";
            match row.text.strip_prefix("template ").and_then(|rest| rest.split_once("> ")) {
                Some((parameter, rest)) => {
                    self.line(format!("template {parameter}> {qualified} {rest}"))
                }
                None => self.line(format!("{qualified} {}", row.text)),
            }
            self.line("");
        }
    }

    fn shared(&mut self, program: &Program) {
        if program.shared.is_empty() {
            return;
        }
        let align = program.shared_align;
        self.line(format!("extern __shared__ __align__({align}) unsigned char shared[];"));
        for Buffer { name, space, element } in &program.shared {
            let ty = type_name(*element);
            if let Space::Shared { offset } = space {
                self.line(format!(
                    "{ty}* const {name} = reinterpret_cast<{ty}*>(shared + {offset});"
                ));
            }
        }
    }

    fn statements(&mut self, body: &[Stmt]) {
        for statement in body {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Let { name, ty, value } => {
                self.line(format!("const {} {name} = {};", type_name(*ty), print(value)))
            }
            Stmt::Var { name, ty, value } => {
                self.line(format!("{} {name} = {};", type_name(*ty), print(value)))
            }
            Stmt::Array { name, ty, dims, init } => self.array(name, *ty, dims, init.as_ref()),
            Stmt::Assign { place, value } => {
                self.line(format!("{} = {};", print(place), print(value)))
            }
            Stmt::Unpack { places, value, ty } => self.unpack(places, value, *ty),
            Stmt::Store { buffer, index, value } => {
                self.line(format!("{buffer}[{}] = {};", print(index), print(value)))
            }
            Stmt::For { var, from, to, step, unroll, body } => {
                if *unroll {
                    self.line("#pragma unroll");
                }
                let step = match step {
                    Expr::Int(1) => format!("++{var}"),
                    step => format!("{var} += {}", print(step)),
                };
                let (from, to) = (print(from), print(to));
                let head = format!("for (int {var} = {from}; {var} < {to}; {step})");
                self.block(head, |w| w.statements(body));
            }
            Stmt::If { condition, then, .. } => {
                self.block(format!("if ({})", print(condition)), |w| w.statements(then))
            }
            Stmt::Roles { consumer_threads, is_consumer, producer, consumers } => {
                self.line(format!("if ({}) {{", print(is_consumer)));
                self.role(Some(*consumer_threads), consumers);
                self.line("} else {");
                self.role(None, producer);
                self.line("}");
            }
            Stmt::Barrier => match self.role_threads {
                None => self.line("__syncthreads();"),
                Some(threads) => self.line(format!(
                    "asm volatile(\"bar.sync {ROLE_BARRIER}, {threads};\" ::: \"memory\");"
                )),
            },
            Stmt::Do { intrinsic, args } => self.line(format!("{};", print_call(intrinsic, args))),
            Stmt::Comment(text) => self.line(format!("// {text}")),
            Stmt::Blank => self.line(""),
        }
    }

    fn role(&mut self, threads: Option<u32>, body: &[Stmt]) {
        self.indent += 1;
        let outside = std::mem::replace(&mut self.role_threads, threads);
        self.statements(body);
        self.role_threads = outside;
        self.indent -= 1;
    }

    fn array(&mut self, name: &str, ty: Type, dims: &[u32], init: Option<&Expr>) {
        let extents: String = dims.iter().fold(String::new(), |mut text, d| {
            let _ = write!(text, "[{d}]");
            text
        });
        // Every initial value in use is zero bits, which `= {}` gives.
        let init = if init.is_some() { " = {}" } else { "" };
        self.line(format!("{} {name}{extents}{init};", type_name(ty)));
    }

    fn unpack(&mut self, places: &[Expr], value: &Expr, ty: Type) {
        if ty.words() == 1 {
            return self.line(format!("{} = {};", print(&places[0]), print(value)));
        }
        self.line("{");
        self.indent += 1;
        self.line(format!("const {} packed = {};", type_name(ty), print(value)));
        for (place, field) in places.iter().zip(["x", "y", "z", "w"]) {
            self.line(format!("{} = packed.{field};", print(place)));
        }
        self.indent -= 1;
        self.line("}");
    }
}

fn parameter(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Scalar(name, ty) => format!("const {} {name}", type_name(*ty)),
        Parameter::TensorMap(name) => format!("const __grid_constant__ TensorMap {name}"),
        Parameter::Buffer(Buffer { name, space, element }) => {
            let constness = if *space == Space::GlobalRead { "const " } else { "" };
            format!("{constness}{}* __restrict__ {name}", type_name(*element))
        }
    }
}

fn print(expr: &Expr) -> String {
    print_within(expr, 0)
}

/// Prints `expr` where an operator of precedence `outer` surrounds it. Mixed bit and shift
/// operators get parentheses even where C++ needs none: readers should not have to know.
fn print_within(expr: &Expr, outer: u8) -> String {
    match expr {
        Expr::Int(value) => value.to_string(),
        Expr::Hex(value) => format!("0x{value:08x}u"),
        Expr::Float(value) => print_float(*value),
        Expr::Var(name) => name.clone(),
        Expr::Element(name, indices) => indices.iter().fold(name.clone(), |mut text, index| {
            let _ = write!(text, "[{}]", print(index));
            text
        }),
        Expr::Binary(op, a, b) => {
            let own = precedence(*op);
            let (a, b) = (print_within(a, own), print_within(b, own + 1));
            let text = format!("{a} {} {b}", symbol(*op));
            if outer > own || (outer > 0 && own < 9 && own > 2) {
                format!("({text})")
            } else {
                text
            }
        }
        Expr::Select(c, a, b) => {
            let text =
                format!("{} ? {} : {}", print_within(c, 2), print_within(a, 2), print_within(b, 2));
            if outer > 0 {
                format!("({text})")
            } else {
                text
            }
        }
        Expr::Cast(ty, value) => format!("static_cast<{}>({})", type_name(*ty), print(value)),
        Expr::Load(buffer, index) => format!("{buffer}[{}]", print(index)),
        Expr::Address(buffer, index) => format!("&{buffer}[{}]", print(index)),
        Expr::Call(name, args) => print_call(name, args),
    }
}

/// Decimal where it is short and exact, else hexadecimal floating point.
fn print_float(value: f32) -> String {
    let decimal = format!("{value:?}");
    if decimal.len() <= 12 && decimal.parse() == Ok(value) {
        return format!("{decimal}f");
    }
    format!("__uint_as_float(0x{:08x}u)", value.to_bits())
}

/// Constants that select the instruction become template arguments, others plain ones.
fn print_call(name: &str, args: &[Expr]) -> String {
    let row = intrinsics::find(name);
    let template = row.is_some_and(|row| row.text.starts_with("template"));
    let printed: Vec<String> = args.iter().map(print).collect();
    match (template, row.map(|row| row.args)) {
        (true, Some([Arg::Constant])) => format!("{name}<{}>()", printed[0]),
        _ => format!("{name}({})", printed.join(", ")),
    }
}

/// Names of all intrinsics that statements use.
fn calls(body: &[Stmt], used: &mut BTreeSet<&'static str>) {
    for statement in body {
        match statement {
            Stmt::Let { value, .. } | Stmt::Var { value, .. } => expr_calls(value, used),
            Stmt::Assign { place, value } => {
                expr_calls(place, used);
                expr_calls(value, used);
            }
            Stmt::Unpack { value, .. } => expr_calls(value, used),
            Stmt::Store { index, value, .. } => {
                expr_calls(index, used);
                expr_calls(value, used);
            }
            Stmt::For { from, to, step, body, .. } => {
                [from, to, step].into_iter().for_each(|e| expr_calls(e, used));
                calls(body, used);
            }
            Stmt::If { condition, then, .. } => {
                expr_calls(condition, used);
                calls(then, used);
            }
            Stmt::Do { intrinsic, args } => {
                used.insert(intrinsic);
                args.iter().for_each(|e| expr_calls(e, used));
            }
            Stmt::Roles { is_consumer, producer, consumers, .. } => {
                expr_calls(is_consumer, used);
                calls(producer, used);
                calls(consumers, used);
            }
            Stmt::Array { .. } | Stmt::Barrier | Stmt::Comment(_) | Stmt::Blank => {}
        }
    }
}

fn expr_calls(expr: &Expr, used: &mut BTreeSet<&'static str>) {
    match expr {
        Expr::Call(name, args) => {
            used.insert(name);
            args.iter().for_each(|e| expr_calls(e, used));
        }
        Expr::Binary(_, a, b) => [a, b].into_iter().for_each(|e| expr_calls(e, used)),
        Expr::Select(a, b, c) => [a, b, c].into_iter().for_each(|e| expr_calls(e, used)),
        Expr::Element(_, indices) => indices.iter().for_each(|e| expr_calls(e, used)),
        Expr::Cast(_, e) | Expr::Load(_, e) | Expr::Address(_, e) => expr_calls(e, used),
        Expr::Int(_) | Expr::Hex(_) | Expr::Float(_) | Expr::Var(_) => {}
    }
}
