//! From text to the syntax tree: recursive descent over the grammar of the language, with macros expanded on the way.
//!
//! What comes in is hostile: the length of the text, the nesting, the depth and the number of the nodes are limited.

use crate::ast::{Ast, Expr, Kind, Literal};
use crate::lexer::{Tok, Token, tokens};
use crate::source::{Issues, Reporter};

mod macros;
mod primary;

/// Longest expression, in code points.
const MAX_SIZE: usize = 100_000;
/// Deepest nesting of expressions, and longest chain of operators, selections and calls.
const MAX_DEPTH: u16 = 250;
/// Most nodes, macros expanded: some macros copy what they are called on.
const MAX_NODES: usize = 200_000;

const EXPRESSION: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Names that cannot be variables.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether a word has a meaning of its own, or may get one.
pub(crate) fn is_reserved(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in") || RESERVED.contains(&word)
}

/// Whether a text can be the name of a variable.
pub fn is_identifier(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(word) && !is_reserved(text)
}

/// What of the syntax beyond the core an environment knows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Syntax {
    /// `a.?b`, `a[?b]`, `[?x]`, `optMap`, `optFlatMap`.
    pub(crate) optional: bool,
    /// `all(i, v, ..)` and its like, `transformList`, `transformMap`, `transformMapEntry`.
    pub(crate) two_variables: bool,
    /// `sortBy`.
    pub(crate) sort_by: bool,
    /// `cel.bind`.
    pub(crate) bind: bool,
}

/// Reading cannot go on; a message has been reported.
struct Stop;

struct Parser<'c> {
    chars: &'c [char],
    tokens: Vec<Token>,
    at: usize,
    nesting: u16,
    syntax: Syntax,
    places: Vec<u32>,
    report: Reporter,
}

/// Parses an expression.
pub(crate) fn parse(text: &str, syntax: Syntax) -> Result<Ast, Issues> {
    let mut report = Reporter::new(text);
    let chars: Vec<char> = text.chars().collect();
    if chars.len() > MAX_SIZE {
        report.overall(format!(
            "expression code point size exceeds limit: size: {}, limit {MAX_SIZE}",
            chars.len()
        ));
    }
    let tokens = if report.is_empty() { tokens(&chars, &mut report) } else { Vec::new() };
    let mut parser = Parser { chars: &chars, tokens, at: 0, nesting: 0, syntax, places: vec![0], report };
    let root = if parser.tokens.is_empty() { None } else { parser.start().ok() };
    let Parser { places, mut report, .. } = parser;
    if root.is_none() && report.is_empty() {
        report.overall("expression cannot be parsed");
    }
    report.finish()?;
    let root = root.unwrap_or(Expr { id: 0, depth: 0, kind: Kind::Error });
    Ok(Ast { root, places })
}

impl Parser<'_> {
    fn peek(&self) -> Token {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn peek_at(&self, ahead: usize) -> Tok {
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].tok
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn text(&self, token: Token) -> String {
        self.chars[token.start as usize..token.end as usize].iter().collect()
    }

    fn eat(&mut self, op: &'static str) -> Option<Token> {
        (self.peek().tok == Tok::Op(op)).then(|| self.next())
    }

    fn expect(&mut self, op: &'static str) -> Result<Token, Stop> {
        self.sync(&format!("'{op}'"), |tok| tok == Tok::Op(op))?;
        Ok(self.next())
    }

    /// Expects the bracket that closes; all that an expression lacks at its end is told as missing.
    fn close(&mut self, op: &'static str) -> Result<(), Stop> {
        let token = self.peek();
        if token.tok == Tok::Eof && self.nesting == 1 {
            self.report.at(token.start, format!("Syntax error: missing '{op}' at '<EOF>'"));
            return Err(Stop);
        }
        self.expect(op).map(drop)
    }

    /// Makes sure that the token here is accepted, leaving out one before it that is too many.
    fn sync(&mut self, expected: &str, accepted: impl Fn(Tok) -> bool) -> Result<(), Stop> {
        if accepted(self.peek().tok) {
            return Ok(());
        }
        if self.peek().tok == Tok::Eof || !accepted(self.peek_at(1)) {
            return Err(self.mismatch(expected));
        }
        let token = self.next();
        let text = self.text(token);
        self.report.at(token.start, format!("Syntax error: extraneous input '{text}' expecting {expected}"));
        Ok(())
    }

    /// Reports the token here as unexpected.
    fn mismatch(&mut self, expected: &str) -> Stop {
        let token = self.peek();
        let text = if token.tok == Tok::Eof { "<EOF>".to_owned() } else { self.text(token) };
        self.report.at(token.start, format!("Syntax error: mismatched input '{text}' expecting {expected}"));
        Stop
    }

    /// Reports the token here as one too many, whatever comes after it.
    fn unwanted(&mut self, expected: &str) -> Stop {
        let token = self.peek();
        let text = if token.tok == Tok::Eof { "<EOF>".to_owned() } else { self.text(token) };
        self.report.at(token.start, format!("Syntax error: extraneous input '{text}' expecting {expected}"));
        Stop
    }

    fn overall(&mut self, message: impl Into<String>) -> Stop {
        self.report.overall(message);
        Stop
    }

    /// The number of a new node at `place`.
    fn id(&mut self, place: u32) -> u32 {
        self.places.push(place);
        (self.places.len() - 1) as u32
    }

    fn node(&mut self, place: u32, depth: u16, kind: Kind) -> Expr {
        Expr { id: self.id(place), depth, kind }
    }

    fn literal(&mut self, place: u32, literal: Literal) -> Expr {
        self.node(place, 0, Kind::Literal(literal))
    }

    /// Reports a message about a place and stands in for what is there.
    fn error(&mut self, place: u32, message: impl Into<String>) -> Expr {
        self.report.at(place, message);
        self.node(place, 0, Kind::Error)
    }

    fn start(&mut self) -> Result<Expr, Stop> {
        let root = self.expr()?;
        self.sync("<EOF>", |tok| tok == Tok::Eof)?;
        Ok(root)
    }

    fn expr(&mut self) -> Result<Expr, Stop> {
        self.nesting += 1;
        if self.nesting > MAX_DEPTH {
            return Err(self.overall(format!("expression recursion limit exceeded: {MAX_DEPTH}")));
        }
        let condition = self.logical()?;
        let expr = match self.eat("?") {
            None => condition,
            Some(op) => {
                let id = self.id(op.start);
                self.nesting += 1;
                let yes = self.logical()?;
                self.nesting -= 1;
                self.expect(":")?;
                let no = self.expr()?;
                self.call(id, "_?_:_", None, vec![condition, yes, no])?
            }
        };
        self.nesting -= 1;
        Ok(expr)
    }

    /// Chains of `||` and of `&&` become balanced trees, so that they may be long.
    fn logical(&mut self) -> Result<Expr, Stop> {
        let mut either = Chain::default();
        let mut both = Chain::default();
        loop {
            both.terms.push(Some(self.binary(0)?));
            let token = self.peek();
            match token.tok {
                Tok::Op("&&") => both.ops.push(self.next().start),
                Tok::Op("||") => {
                    either.ops.push(self.next().start);
                    either.terms.push(Some(self.join("_&&_", &mut both)));
                }
                _ => break,
            }
        }
        either.terms.push(Some(self.join("_&&_", &mut both)));
        Ok(self.join("_||_", &mut either))
    }

    fn join(&mut self, function: &'static str, chain: &mut Chain) -> Expr {
        let ids: Vec<u32> = chain.ops.drain(..).map(|place| self.id(place)).collect();
        let joined = balance(function, &ids, &mut chain.terms);
        chain.terms.clear();
        joined
    }

    /// Operators that bind at least as tightly as `level`, from the left.
    fn binary(&mut self, level: u8) -> Result<Expr, Stop> {
        let mut left = self.unary()?;
        while let Some((tightness, function)) = operator(self.peek().tok)
            && tightness >= level
        {
            let place = self.next().start;
            let id = self.id(place);
            let right = self.binary(tightness + 1)?;
            left = self.call(id, function, None, vec![left, right])?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Stop> {
        self.sync(EXPRESSION, begins)?;
        let first = self.peek();
        let (op, function) = match first.tok {
            Tok::Op("!") => ("!", "!_"),
            Tok::Op("-") if !matches!(self.peek_at(1), Tok::Int | Tok::Double) => ("-", "-_"),
            _ => return self.member(),
        };
        let mut odd = false;
        while self.peek().tok == Tok::Op(op) {
            if op == "-" && matches!(self.peek_at(1), Tok::Int | Tok::Double) && odd {
                break;
            }
            self.next();
            odd = !odd;
        }
        if !begins(self.peek().tok) {
            return Err(match op {
                "!" => self.unwanted(EXPRESSION),
                _ => {
                    // It may be the sign of a number as well, which is told first.
                    let here = self.peek().start;
                    self.report.at(here, "Syntax error: no viable alternative at input '-'");
                    self.mismatch(EXPRESSION)
                }
            });
        }
        if !odd {
            return self.member();
        }
        let id = self.id(first.start);
        let operand = self.member()?;
        self.call(id, function, None, vec![operand])
    }

    fn member(&mut self) -> Result<Expr, Stop> {
        let mut target = self.primary()?;
        loop {
            if let Some(dot) = self.eat(".") {
                let optional = self.eat("?").is_some();
                target = self.selection(target, dot, optional)?;
            } else if let Some(bracket) = self.eat("[") {
                let optional = self.eat("?").is_some();
                if optional && !self.syntax.optional {
                    self.report.at(bracket.start, "unsupported syntax '[?'");
                }
                let id = self.id(bracket.start);
                let index = self.expr()?;
                self.close("]")?;
                let function = if optional { "_[?_]" } else { "_[_]" };
                target = self.call(id, function, None, vec![target, index])?;
            } else {
                return Ok(target);
            }
        }
    }

    /// What follows the dot after `target`: a field or a call.
    fn selection(&mut self, target: Expr, dot: Token, optional: bool) -> Result<Expr, Stop> {
        if !optional && self.peek().tok == Tok::Eof {
            let end = self.peek().start;
            self.report.at(end, "Syntax error: no viable alternative at input '.'");
            return Err(Stop);
        }
        let name = self.field_name()?;
        if !optional {
            if let Some(open) = self.eat("(") {
                let id = self.id(open.start);
                let args = self.arguments()?;
                return self.call_or_macro(id, &name, Some(target), args);
            }
            let depth = self.deepen(target.depth)?;
            return Ok(self.node(
                dot.start,
                depth,
                Kind::Select { operand: Box::new(target), field: name, test: false },
            ));
        }
        if !self.syntax.optional {
            return Ok(self.error(dot.start, "unsupported syntax '.?'"));
        }
        let id = self.id(dot.start);
        let field = self.literal(dot.start, Literal::String(name.into()));
        self.call(id, "_?._", None, vec![target, field])
    }

    fn field_name(&mut self) -> Result<String, Stop> {
        let token = self.peek();
        match token.tok {
            Tok::Ident => {
                self.next();
                Ok(self.text(token))
            }
            Tok::EscapedIdent => {
                self.next();
                self.report.at(token.start, "unsupported syntax: '`'");
                Ok(self.text(token))
            }
            _ => Err(self.mismatch("IDENTIFIER")),
        }
    }

    fn deepen(&mut self, depth: u16) -> Result<u16, Stop> {
        if self.places.len() > MAX_NODES {
            return Err(self.overall(format!("expression node limit exceeded: {MAX_NODES}")));
        }
        if depth >= MAX_DEPTH { Err(self.overall("max recursion depth exceeded")) } else { Ok(depth + 1) }
    }

    /// The call of an operator or a function.
    fn call(&mut self, id: u32, function: &str, target: Option<Expr>, args: Vec<Expr>) -> Result<Expr, Stop> {
        let deepest = target.iter().chain(&args).map(|a| a.depth).max().unwrap_or(0);
        let depth = self.deepen(deepest)?;
        Ok(Expr {
            id,
            depth,
            kind: Kind::Call { function: function.to_owned(), target: target.map(Box::new), args },
        })
    }
}

/// The terms between operators of one kind, and the places of the operators.
#[derive(Default)]
struct Chain {
    terms: Vec<Option<Expr>>,
    ops: Vec<u32>,
}

/// Whether an expression may begin with a token.
fn begins(tok: Tok) -> bool {
    match tok {
        Tok::Op(op) => matches!(op, "[" | "{" | "(" | "." | "-" | "!"),
        Tok::Eof | Tok::In | Tok::EscapedIdent => false,
        _ => true,
    }
}

/// How tightly an operator binds, and its function.
fn operator(tok: Tok) -> Option<(u8, &'static str)> {
    Some(match tok {
        Tok::Op("<") => (0, "_<_"),
        Tok::Op("<=") => (0, "_<=_"),
        Tok::Op(">") => (0, "_>_"),
        Tok::Op(">=") => (0, "_>=_"),
        Tok::Op("==") => (0, "_==_"),
        Tok::Op("!=") => (0, "_!=_"),
        Tok::In => (0, "@in"),
        Tok::Op("+") => (1, "_+_"),
        Tok::Op("-") => (1, "_-_"),
        Tok::Op("*") => (2, "_*_"),
        Tok::Op("/") => (2, "_/_"),
        Tok::Op("%") => (2, "_%_"),
        _ => return None,
    })
}

/// A balanced tree over `terms`, joined by the calls `ids`.
fn balance(function: &str, ids: &[u32], terms: &mut [Option<Expr>]) -> Expr {
    let take = |term: &mut Option<Expr>| term.take().unwrap_or(Expr { id: 0, depth: 0, kind: Kind::Error });
    if ids.is_empty() {
        return take(&mut terms[0]);
    }
    let middle = ids.len() / 2;
    let (low, high) = terms.split_at_mut(middle + 1);
    let left = balance(function, &ids[..middle], low);
    let right = balance(function, &ids[middle + 1..], high);
    let depth = left.depth.max(right.depth);
    let args = vec![left, right];
    Expr { id: ids[middle], depth, kind: Kind::Call { function: function.to_owned(), target: None, args } }
}

#[cfg(test)]
mod tests;
