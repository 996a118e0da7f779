//! Pure expressions, with the operators that make lowering code read like the kernel it builds.

use super::Type;
use std::ops;

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the operators")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Shl,
    Shr,
    BitAnd,
    BitOr,
    BitXor,
    Less,
    Equal,
    And,
    Or,
}

/// A pure expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Signed integer literal.
    Int(i64),
    /// Unsigned literal printed in hexadecimal: masks and bit patterns.
    Hex(u32),
    /// f32 literal.
    Float(f32),
    /// A variable, parameter or named constant.
    Var(String),
    /// An element of a register array.
    Element(String, Vec<Expr>),
    /// A binary operation.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `condition ? a : b`.
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    /// Conversion to a scalar type.
    Cast(Type, Box<Expr>),
    /// `buffer[index]`.
    Load(String, Box<Expr>),
    /// `&buffer[index]`, for intrinsics that take addresses.
    Address(String, Box<Expr>),
    /// A value intrinsic.
    Call(&'static str, Vec<Expr>),
}

/// Integer literal.
pub fn int(value: impl Into<i64>) -> Expr {
    Expr::Int(value.into())
}

/// Bit pattern literal.
pub fn hex(value: u32) -> Expr {
    Expr::Hex(value)
}

/// f32 literal.
pub fn float(value: f64) -> Expr {
    Expr::Float(value as f32)
}

/// A variable by name.
pub fn var(name: impl Into<String>) -> Expr {
    Expr::Var(name.into())
}

/// A value intrinsic applied to arguments.
pub fn call(intrinsic: &'static str, args: impl Into<Vec<Expr>>) -> Expr {
    Expr::Call(intrinsic, args.into())
}

/// `buffer[index]`.
pub fn load(buffer: impl Into<String>, index: Expr) -> Expr {
    Expr::Load(buffer.into(), Box::new(index))
}

/// `condition ? a : b`.
pub fn select(condition: Expr, a: Expr, b: Expr) -> Expr {
    Expr::Select(Box::new(condition), Box::new(a), Box::new(b))
}

impl Expr {
    /// Element of a register array.
    pub fn at(name: impl Into<String>, indices: impl Into<Vec<Expr>>) -> Expr {
        Expr::Element(name.into(), indices.into())
    }

    /// Address of a buffer element.
    pub fn address(buffer: impl Into<String>, index: Expr) -> Expr {
        Expr::Address(buffer.into(), Box::new(index))
    }

    /// Conversion.
    pub fn cast(self, ty: Type) -> Expr {
        Expr::Cast(ty, Box::new(self))
    }

    /// `self < other`.
    pub fn less(self, other: impl Into<Expr>) -> Expr {
        binary(BinaryOp::Less, self, other.into())
    }

    /// `self == other`.
    pub fn equals(self, other: impl Into<Expr>) -> Expr {
        binary(BinaryOp::Equal, self, other.into())
    }

    /// Logical or.
    pub fn or(self, other: Expr) -> Expr {
        binary(BinaryOp::Or, self, other)
    }

    /// Logical and.
    pub fn and(self, other: Expr) -> Expr {
        binary(BinaryOp::And, self, other)
    }
}

impl From<i64> for Expr {
    fn from(value: i64) -> Expr {
        Expr::Int(value)
    }
}

impl From<u32> for Expr {
    fn from(value: u32) -> Expr {
        Expr::Int(value.into())
    }
}

impl From<&str> for Expr {
    fn from(name: &str) -> Expr {
        var(name)
    }
}

/// Builds a binary operation, folding what is known: generated text should not multiply by one.
fn binary(op: BinaryOp, a: Expr, b: Expr) -> Expr {
    use BinaryOp::*;
    match (op, &a, &b) {
        (Add, Expr::Int(x), Expr::Int(y)) => Expr::Int(x + y),
        (Sub, Expr::Int(x), Expr::Int(y)) => Expr::Int(x - y),
        (Mul, Expr::Int(x), Expr::Int(y)) => Expr::Int(x * y),
        (Div, Expr::Int(x), Expr::Int(y)) if *y != 0 => Expr::Int(x / y),
        (Rem, Expr::Int(x), Expr::Int(y)) if *y != 0 => Expr::Int(x % y),
        (Add | Sub | Shl | Shr, _, Expr::Int(0)) | (Mul | Div, _, Expr::Int(1)) => a,
        (Add, Expr::Int(0), _) | (Mul, Expr::Int(1), _) => b,
        (Mul, _, Expr::Int(0)) | (Rem, _, Expr::Int(1)) => Expr::Int(0),
        _ => Expr::Binary(op, Box::new(a), Box::new(b)),
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:ident) => {
        impl<T: Into<Expr>> ops::$trait<T> for Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr {
                binary(BinaryOp::$op, self, other.into())
            }
        }
    };
}
operator!(Add, add, Add);
operator!(Sub, sub, Sub);
operator!(Mul, mul, Mul);
operator!(Div, div, Div);
operator!(Rem, rem, Rem);
operator!(Shl, shl, Shl);
operator!(Shr, shr, Shr);
operator!(BitAnd, bitand, BitAnd);
operator!(BitOr, bitor, BitOr);
operator!(BitXor, bitxor, BitXor);
