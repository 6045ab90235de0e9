//! What operators stand between: names, calls, literals, lists, maps, objects.

use std::sync::Arc;

use super::{EXPRESSION, Parser, RESERVED, Stop, begins};
use crate::ast::{Expr, Kind, Literal, MapEntry, StructField};
use crate::lexer::{Tok, Token, unescape::unescape};

/// What may begin the arguments of a call.
const ARGUMENT: &str = "{'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
/// What may begin the elements of a list.
const ELEMENT: &str = "{'[', ']', '{', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
/// What may begin the entries of a map.
const ENTRY: &str = "{'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
/// What may begin the fields of an object.
const FIELD: &str = "{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}";

impl Parser<'_> {
    pub(super) fn primary(&mut self) -> Result<Expr, Stop> {
        let token = self.peek();
        match token.tok {
            Tok::Ident => self.name(""),
            Tok::Op(".") => {
                self.next();
                if self.peek().tok != Tok::Ident {
                    return Err(self.mismatch("IDENTIFIER"));
                }
                self.name(".")
            }
            Tok::Op("(") => {
                self.next();
                let inner = self.expr()?;
                self.close(")")?;
                Ok(inner)
            }
            Tok::Op("[") => self.list(),
            Tok::Op("{") => self.map(),
            Tok::Op("-") if matches!(self.peek_at(1), Tok::Int | Tok::Double) => {
                self.next();
                let number = self.next();
                Ok(self.number(token.start, "-", number))
            }
            Tok::Int | Tok::Uint | Tok::Double => {
                self.next();
                Ok(self.number(token.start, "", token))
            }
            Tok::String | Tok::Bytes => {
                self.next();
                Ok(self.string(token))
            }
            Tok::True | Tok::False => {
                self.next();
                Ok(self.literal(token.start, Literal::Bool(token.tok == Tok::True)))
            }
            Tok::Null => {
                self.next();
                Ok(self.literal(token.start, Literal::Null))
            }
            _ => Err(self.mismatch(EXPRESSION)),
        }
    }

    /// A variable, a call of a function, or the construction of an object of a named type.
    fn name(&mut self, dot: &str) -> Result<Expr, Stop> {
        if let Some(length) = self.type_name_length() {
            return self.object(dot, length);
        }
        let token = self.next();
        let word = self.text(token);
        let open = self.eat("(");
        if RESERVED.contains(&word.as_str()) {
            let error = self.error(token.start, format!("reserved identifier: {word}"));
            if open.is_some() {
                self.arguments()?;
            }
            return Ok(error);
        }
        let name = format!("{dot}{word}");
        match open {
            None => Ok(self.node(token.start, 0, Kind::Ident(name))),
            Some(open) => {
                let id = self.id(open.start);
                let args = self.arguments()?;
                self.call_or_macro(id, &name, None, args)
            }
        }
    }

    /// How many tokens the name here has, if it is followed by a brace.
    fn type_name_length(&self) -> Option<usize> {
        let mut ahead = 1;
        while self.peek_at(ahead) == Tok::Op(".") && self.peek_at(ahead + 1) == Tok::Ident {
            ahead += 2;
        }
        (self.peek_at(ahead) == Tok::Op("{")).then_some(ahead)
    }

    fn object(&mut self, dot: &str, length: usize) -> Result<Expr, Stop> {
        let mut name = dot.to_owned();
        for _ in 0..length {
            let token = self.next();
            name.push_str(&self.text(token));
        }
        let brace = self.next();
        let id = self.id(brace.start);
        let mut fields = Vec::new();
        self.sync(FIELD, |tok| matches!(tok, Tok::Op("}" | "," | "?") | Tok::Ident | Tok::EscapedIdent))?;
        while !matches!(self.peek().tok, Tok::Op("}" | ",") | Tok::Eof) {
            let optional = self.optional_mark();
            let field = self.field_name()?;
            let colon = self.expect(":")?;
            let field_id = self.id(colon.start);
            let value = self.expr()?;
            fields.push(StructField { id: field_id, name: field, value, optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.end("}", "{'}', ','}")?;
        let depth = fields.iter().map(|f| f.value.depth).max().unwrap_or(0);
        Ok(Expr { id, depth, kind: Kind::Struct { name, fields } })
    }

    fn optional_mark(&mut self) -> bool {
        let mark = self.eat("?");
        if let Some(mark) = mark
            && !self.syntax.optional
        {
            self.report.at(mark.start, "unsupported syntax '?'");
        }
        mark.is_some()
    }

    pub(super) fn arguments(&mut self) -> Result<Vec<Expr>, Stop> {
        let mut args = Vec::new();
        self.sync(ARGUMENT, |tok| tok == Tok::Op(")") || begins(tok))?;
        if self.eat(")").is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.eat(",").is_none() {
                self.close(")")?;
                return Ok(args);
            }
        }
    }

    fn list(&mut self) -> Result<Expr, Stop> {
        let open = self.next();
        let id = self.id(open.start);
        let mut elements = Vec::new();
        self.sync(ELEMENT, |tok| matches!(tok, Tok::Op("]" | "," | "?")) || begins(tok))?;
        while !matches!(self.peek().tok, Tok::Op("]" | ",") | Tok::Eof) {
            let optional = self.optional_mark();
            elements.push((self.expr()?, optional));
            if self.eat(",").is_none() {
                break;
            }
        }
        self.end("]", "{']', ','}")?;
        let depth = elements.iter().map(|(e, _)| e.depth).max().unwrap_or(0);
        Ok(Expr { id, depth, kind: Kind::List(elements) })
    }

    /// The end of a list, a map or an object, before which one comma may stand.
    fn end(&mut self, op: &'static str, expected: &str) -> Result<(), Stop> {
        if self.tokens[self.at - 1].tok != Tok::Op(",") {
            self.sync(expected, |tok| tok == Tok::Op(op) || tok == Tok::Op(","))?;
            self.eat(",");
        }
        self.close(op)
    }

    fn map(&mut self) -> Result<Expr, Stop> {
        let open = self.next();
        let id = self.id(open.start);
        let mut entries = Vec::new();
        self.sync(ENTRY, |tok| matches!(tok, Tok::Op("}" | "," | "?")) || begins(tok))?;
        while !matches!(self.peek().tok, Tok::Op("}" | ",") | Tok::Eof) {
            let optional = self.optional_mark();
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(MapEntry { key, value, optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.end("}", "{'}', ','}")?;
        let depth = entries.iter().map(|e| e.key.depth.max(e.value.depth)).max().unwrap_or(0);
        Ok(Expr { id, depth, kind: Kind::Map(entries) })
    }

    fn number(&mut self, place: u32, sign: &str, token: Token) -> Expr {
        let text = self.text(token);
        let (radix, digits) = match text.strip_prefix("0x") {
            Some(hex) => (16, hex),
            None => (10, text.as_str()),
        };
        let literal = match token.tok {
            Tok::Double => {
                format!("{sign}{text}").parse().ok().filter(|d: &f64| d.is_finite()).map(Literal::Double)
            }
            Tok::Uint => u64::from_str_radix(&digits[..digits.len() - 1], radix).ok().map(Literal::Uint),
            _ => i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Literal::Int),
        };
        match (literal, token.tok) {
            (Some(literal), _) => self.literal(place, literal),
            (None, Tok::Double) => self.error(place, "invalid double literal"),
            (None, Tok::Uint) => self.error(place, "invalid uint literal"),
            (None, _) => self.error(place, "invalid int literal"),
        }
    }

    fn string(&mut self, token: Token) -> Expr {
        let text = self.text(token);
        let is_bytes = token.tok == Tok::Bytes;
        match unescape(if is_bytes { &text[1..] } else { &text }, is_bytes) {
            Ok(value) if is_bytes => self.literal(token.start, Literal::Bytes(value.into())),
            Ok(value) => {
                let value: Arc<str> = String::from_utf8_lossy(&value).into();
                self.literal(token.start, Literal::String(value))
            }
            Err(message) => self.error(token.start, message),
        }
    }
}
