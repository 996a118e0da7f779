//! A block of statements under construction.

use super::{Expr, Stmt, Type};

/// Statements in order; lowering code appends to it.
#[derive(Default)]
pub struct Body {
    statements: Vec<Stmt>,
}

impl Body {
    /// An empty block.
    pub fn new() -> Body {
        Body::default()
    }

    /// The statements.
    pub fn finish(self) -> Vec<Stmt> {
        self.statements
    }

    fn push(&mut self, statement: Stmt) {
        self.statements.push(statement);
    }

    /// A comment line.
    pub fn comment(&mut self, text: impl Into<String>) {
        self.push(Stmt::Comment(text.into()));
    }

    /// An empty line and a comment that opens a part of the kernel.
    pub fn section(&mut self, text: impl Into<String>) {
        self.push(Stmt::Blank);
        self.comment(text);
    }

    /// An immutable value; returns the expression that names it.
    pub fn bind(&mut self, name: impl Into<String>, ty: Type, value: Expr) -> Expr {
        let name = name.into();
        self.push(Stmt::Let { name: name.clone(), ty, value });
        Expr::Var(name)
    }

    /// A mutable scalar; returns the expression that names it.
    pub fn variable(&mut self, name: impl Into<String>, ty: Type, value: Expr) -> Expr {
        let name = name.into();
        self.push(Stmt::Var { name: name.clone(), ty, value });
        Expr::Var(name)
    }

    /// A register array whose elements start undefined.
    pub fn array(&mut self, name: impl Into<String>, ty: Type, dims: &[u32]) {
        self.push(Stmt::Array { name: name.into(), ty, dims: dims.to_vec(), init: None });
    }

    /// A register array of zeros.
    pub fn zeros(&mut self, name: impl Into<String>, ty: Type, dims: &[u32]) {
        let zero = match ty {
            Type::F32 => Expr::Float(0.0),
            Type::I32 => Expr::Int(0),
            _ => Expr::Hex(0),
        };
        self.push(Stmt::Array { name: name.into(), ty, dims: dims.to_vec(), init: Some(zero) });
    }

    /// `place = value`.
    pub fn assign(&mut self, place: Expr, value: Expr) {
        self.push(Stmt::Assign { place, value });
    }

    /// Words of a vector value into 32-bit places.
    pub fn unpack(&mut self, places: Vec<Expr>, ty: Type, value: Expr) {
        self.push(Stmt::Unpack { places, value, ty });
    }

    /// `buffer[index] = value`.
    pub fn store(&mut self, buffer: impl Into<String>, index: Expr, value: Expr) {
        self.push(Stmt::Store { buffer: buffer.into(), index, value });
    }

    /// Parts the block: the `consumer_threads` threads where `is_consumer` holds run the second
    /// body, the others the first.
    pub fn roles(
        &mut self,
        consumer_threads: u32,
        is_consumer: Expr,
        producer: impl FnOnce(&mut Body),
        consumers: impl FnOnce(&mut Body),
    ) {
        let (mut first, mut second) = (Body::new(), Body::new());
        producer(&mut first);
        consumers(&mut second);
        self.push(Stmt::Roles {
            consumer_threads,
            is_consumer,
            producer: first.finish(),
            consumers: second.finish(),
        });
    }

    /// A barrier of the role, or of the whole block.
    pub fn barrier(&mut self) {
        self.push(Stmt::Barrier);
    }

    /// A statement intrinsic.
    pub fn call(&mut self, intrinsic: &'static str, args: impl Into<Vec<Expr>>) {
        self.push(Stmt::Do { intrinsic, args: args.into() });
    }

    /// A loop over `from..to`.
    pub fn range(
        &mut self,
        name: &str,
        from: impl Into<Expr>,
        to: impl Into<Expr>,
        step: impl Into<Expr>,
        body: impl FnOnce(&mut Body, Expr),
    ) {
        self.loop_(name, (from.into(), to.into(), step.into()), false, body);
    }

    /// A fully unrolled loop over `0..count`; a single iteration is emitted without a loop.
    pub fn unrolled(&mut self, name: &str, count: u32, body: impl FnOnce(&mut Body, Expr)) {
        if count == 1 {
            return body(self, Expr::Int(0));
        }
        self.loop_(name, (Expr::Int(0), Expr::from(count), Expr::Int(1)), true, body);
    }

    fn loop_(
        &mut self,
        name: &str,
        (from, to, step): (Expr, Expr, Expr),
        unroll: bool,
        body: impl FnOnce(&mut Body, Expr),
    ) {
        let mut inner = Body::new();
        body(&mut inner, Expr::Var(name.into()));
        let body = inner.finish();
        self.push(Stmt::For { var: name.into(), from, to, step, unroll, body });
    }

    /// A conditional that threads may take differently.
    pub fn when(&mut self, condition: Expr, then: impl FnOnce(&mut Body)) {
        self.branch(condition, false, then);
    }

    /// A conditional that all threads of the block take the same way.
    pub fn when_uniform(&mut self, condition: Expr, then: impl FnOnce(&mut Body)) {
        self.branch(condition, true, then);
    }

    fn branch(&mut self, condition: Expr, uniform: bool, then: impl FnOnce(&mut Body)) {
        let mut inner = Body::new();
        then(&mut inner);
        self.push(Stmt::If { condition, then: inner.finish(), uniform });
    }
}
