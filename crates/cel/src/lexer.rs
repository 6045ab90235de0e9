//! Tokens of the language. Grammar: <https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax>.

use crate::source::Reporter;

pub(crate) mod unescape;

/// What a token is; its text is looked up by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tok {
    Ident,
    EscapedIdent,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    True,
    False,
    Null,
    In,
    /// Any operator or bracket, by its text.
    Op(&'static str),
    Eof,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// Operators, longest first; the last three begin operators only.
const OPERATORS: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%", "=", "|", "&",
];

struct Lexer<'c> {
    chars: &'c [char],
    at: usize,
}

/// Splits `chars` into tokens, the last of which is [`Tok::Eof`]; what is no token is reported and left out.
pub(crate) fn tokens(chars: &[char], report: &mut Reporter) -> Vec<Token> {
    let mut lexer = Lexer { chars, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        let tok = if start == chars.len() { Some(Tok::Eof) } else { lexer.token() };
        match tok {
            Some(tok) => tokens.push(Token { tok, start: start as u32, end: lexer.at as u32 }),
            None => {
                lexer.at = (lexer.at + 1).min(chars.len());
                let text: String = chars[start..lexer.at].iter().collect();
                let text = text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
                report.at(start as u32, format!("Syntax error: token recognition error at: '{text}'"));
            }
        }
        if tok == Some(Tok::Eof) {
            return tokens;
        }
    }
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn eat(&mut self, accept: impl Fn(char) -> bool) -> bool {
        let before = self.at;
        while self.at < self.chars.len() && accept(self.chars[self.at]) {
            self.at += 1;
        }
        self.at > before
    }

    fn skip_blanks(&mut self) {
        loop {
            self.eat(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\x0c'));
            if self.peek(0) != '/' || self.peek(1) != '/' {
                return;
            }
            self.eat(|c| c != '\n');
        }
    }

    /// The token here; where there is none, what begins like one is skipped.
    fn token(&mut self) -> Option<Tok> {
        let c = self.peek(0);
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return Some(self.number());
        }
        if let Some(tok) = self.string() {
            return tok;
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            self.eat(|c| c.is_ascii_alphanumeric() || c == '_');
            let word: String = self.chars[start..self.at].iter().collect();
            return Some(match word.as_str() {
                "true" => Tok::True,
                "false" => Tok::False,
                "null" => Tok::Null,
                "in" => Tok::In,
                _ => Tok::Ident,
            });
        }
        if c == '`' {
            self.at += 1;
            let some = self.eat(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' '));
            return (some && self.eat_one('`')).then_some(Tok::EscapedIdent);
        }
        let op = OPERATORS.into_iter().find(|op| op.chars().enumerate().all(|(i, c)| self.peek(i) == c))?;
        self.at += op.len();
        (!matches!(op, "=" | "|" | "&")).then_some(Tok::Op(op))
    }

    fn eat_one(&mut self, c: char) -> bool {
        let found = self.at < self.chars.len() && self.chars[self.at] == c;
        self.at += usize::from(found);
        found
    }

    fn number(&mut self) -> Tok {
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            self.eat(|c| c.is_ascii_hexdigit());
        } else {
            self.eat(|c| c.is_ascii_digit());
            let mut double = false;
            if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
                self.at += 1;
                self.eat(|c| c.is_ascii_digit());
                double = true;
            }
            if matches!(self.peek(0), 'e' | 'E') {
                let sign = usize::from(matches!(self.peek(1), '+' | '-'));
                if self.peek(1 + sign).is_ascii_digit() {
                    self.at += 1 + sign;
                    self.eat(|c| c.is_ascii_digit());
                    double = true;
                }
            }
            if double {
                return Tok::Double;
            }
        }
        if self.eat_one('u') || self.eat_one('U') { Tok::Uint } else { Tok::Int }
    }

    /// A string or bytes with its prefixes and quotes; none inside means that it does not end.
    fn string(&mut self) -> Option<Option<Tok>> {
        let bytes = usize::from(matches!(self.peek(0), 'b' | 'B'));
        let raw = usize::from(matches!(self.peek(bytes), 'r' | 'R'));
        let quote = self.peek(bytes + raw);
        if !matches!(quote, '"' | '\'') {
            return None;
        }
        self.at += bytes + raw;
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        let width = if triple { 3 } else { 1 };
        self.at += width;
        loop {
            if self.at >= self.chars.len() {
                return Some(None);
            }
            let c = self.peek(0);
            if (0..width).all(|i| self.peek(i) == quote) {
                self.at += width;
                return Some(Some(if bytes == 1 { Tok::Bytes } else { Tok::String }));
            }
            if !triple && matches!(c, '\n' | '\r') {
                return Some(None);
            }
            if c == '\\' && raw == 0 {
                match self.escape_width() {
                    Some(n) => self.at += n,
                    None => {
                        self.skip_escape();
                        return Some(None);
                    }
                }
            } else {
                self.at += 1;
            }
        }
    }

    /// Skips what there is of an escape sequence that is wrong.
    fn skip_escape(&mut self) {
        let kind = self.peek(1);
        self.at += 1;
        match kind {
            'x' | 'X' | 'u' | 'U' => {
                self.at += 1;
                self.eat(|c| c.is_ascii_hexdigit());
            }
            '0'..='3' => {
                self.at += 1;
                self.eat(|c| matches!(c, '0'..='7'));
            }
            _ => {}
        }
    }

    /// How many characters the escape sequence here has.
    fn escape_width(&self) -> Option<usize> {
        let hex = |n: usize| (2..2 + n).all(|i| self.peek(i).is_ascii_hexdigit()).then_some(2 + n);
        match self.peek(1) {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`' => Some(2),
            'x' | 'X' => hex(2),
            'u' => hex(4),
            'U' => hex(8),
            '0'..='3' => (2..4).all(|i| matches!(self.peek(i), '0'..='7')).then_some(4),
            _ => None,
        }
    }
}
