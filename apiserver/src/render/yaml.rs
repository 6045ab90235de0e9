//! YAML as upstream's library prints it: items at the column of their list's key, plain scalars wherever they cannot be
//! taken for something else, lines folded after eighty columns.

use std::cmp::Ordering;
use std::sync::LazyLock;

use api::Value;
use regex::Regex;

const WIDTH: usize = 80;
const STEP: usize = 2;
/// Keys longer than this are marked as such.
const SIMPLE_KEY: usize = 128;

/// The text of a value.
pub(super) fn print(value: &Value) -> String {
    let mut printer = Printer { out: String::new(), column: 0, blank: true, indenting: true };
    printer.node(value, None, false);
    printer.start_line(0);
    printer.out
}

struct Printer {
    out: String,
    column: usize,
    /// True behind white space.
    blank: bool,
    /// True while the line holds nothing but indentation and markers of it.
    indenting: bool,
}

fn deeper(indent: Option<usize>) -> usize {
    indent.map_or(0, |n| n + STEP)
}

impl Printer {
    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column = if c == '\n' { 0 } else { self.column + 1 };
    }

    fn text(&mut self, text: &str) {
        text.chars().for_each(|c| self.put(c));
        (self.blank, self.indenting) = (false, false);
    }

    /// Goes to a new line with `indent`, unless the line is still at or before it.
    fn start_line(&mut self, indent: usize) {
        if !self.indenting || self.column > indent || (self.column == indent && !self.blank) {
            self.put('\n');
        }
        while self.column < indent {
            self.put(' ');
        }
        (self.blank, self.indenting) = (true, true);
    }

    fn space(&mut self) {
        if !self.blank {
            self.put(' ');
            self.blank = true;
        }
    }

    /// A marker that counts as indentation: `-`, `?`, and the `:` of a long key.
    fn marker(&mut self, c: char) {
        let indenting = self.indenting;
        self.space();
        self.put(c);
        (self.blank, self.indenting) = (false, indenting);
    }

    fn node(&mut self, value: &Value, indent: Option<usize>, below_key: bool) {
        match value {
            Value::Object(map) if map.is_empty() => self.word("{}"),
            Value::Array(items) if items.is_empty() => self.word("[]"),
            Value::Object(map) => {
                let indent = deeper(indent);
                let mut members: Vec<(&str, &Value)> = map.iter().collect();
                members.sort_by(|(a, _), (b, _)| natural(a, b));
                for (key, value) in members {
                    self.member(key, value, indent);
                }
            }
            Value::Array(items) => {
                let flush = below_key && !self.indenting;
                let indent = if flush { indent.unwrap_or(0) } else { deeper(indent) };
                for item in items {
                    self.start_line(indent);
                    self.marker('-');
                    self.node(item, Some(indent), false);
                }
            }
            Value::String(text) => self.string(text, deeper(indent).max(STEP), false),
            other => self.word(&other.to_string()),
        }
    }

    fn word(&mut self, word: &str) {
        self.space();
        self.text(word);
    }

    fn member(&mut self, key: &str, value: &Value, indent: usize) {
        self.start_line(indent);
        let simple = key.len() <= SIMPLE_KEY && !key.contains(is_break);
        if simple {
            self.string(key, indent + STEP, true);
            self.put(':');
            self.indenting = false;
        } else {
            self.marker('?');
            self.string(key, indent + STEP, false);
            self.start_line(indent);
            self.marker(':');
        }
        self.node(value, Some(indent), true);
    }

    fn string(&mut self, text: &str, indent: usize, key: bool) {
        let allowed = Allowed::of(text);
        let lines = text.contains('\n');
        self.space();
        if lines && allowed.block && !key {
            self.literal(text, indent);
        } else if lines || !is_text(text) || !(allowed.plain || allowed.single) {
            self.double(text, indent, key);
        } else if allowed.plain && !text.is_empty() {
            self.folded(text, indent, key, |_| {});
        } else {
            self.put('\'');
            self.folded(text, indent, key, |printer| printer.put('\''));
            self.put('\'');
        }
        (self.blank, self.indenting) = (false, false);
        if lines && allowed.block && !key && self.column == 0 {
            (self.blank, self.indenting) = (true, true);
        }
    }

    /// Plain or in single quotes, which `quote` doubles.
    fn folded(&mut self, text: &str, indent: usize, key: bool, quote: fn(&mut Self)) {
        let mut after_space = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let single = c == ' ' && !after_space && chars.peek().is_some_and(|n| *n != ' ');
            if single && !key && self.column > WIDTH {
                self.indenting = false;
                self.start_line(indent);
            } else {
                if c == '\'' {
                    quote(self);
                }
                self.put(c);
            }
            after_space = c == ' ';
        }
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.put('|');
        if text.starts_with([' ', '\n']) {
            self.put('2');
        }
        match text.strip_suffix('\n') {
            None => self.put('-'),
            Some(rest) if rest.is_empty() || rest.ends_with('\n') => self.put('+'),
            Some(_) => {}
        }
        self.put('\n');
        for line in text.split_inclusive('\n') {
            if line != "\n" {
                for _ in 0..indent {
                    self.put(' ');
                }
            }
            line.chars().for_each(|c| self.put(c));
        }
    }

    fn double(&mut self, text: &str, indent: usize, key: bool) {
        self.put('"');
        let mut after_space = false;
        let mut chars = text.chars().enumerate().peekable();
        let last = text.chars().count().saturating_sub(1);
        while let Some((i, c)) = chars.next() {
            let inside = i > 0 && i < last;
            if c == ' ' && !key && !after_space && self.column > WIDTH && inside {
                self.indenting = false;
                self.start_line(indent);
                if chars.peek().is_some_and(|(_, n)| *n == ' ') {
                    self.put('\\');
                }
            } else if c == '"' || c == '\\' {
                self.put('\\');
                self.put(c);
            } else if is_break(c) || !is_printable(c) {
                escape(c).chars().for_each(|c| self.put(c));
            } else {
                self.put(c);
            }
            after_space = c == ' ';
        }
        self.put('"');
    }
}

fn escape(c: char) -> String {
    match c {
        '\0' => "\\0".to_owned(),
        '\x07' => "\\a".to_owned(),
        '\x08' => "\\b".to_owned(),
        '\t' => "\\t".to_owned(),
        '\n' => "\\n".to_owned(),
        '\x0b' => "\\v".to_owned(),
        '\x0c' => "\\f".to_owned(),
        '\r' => "\\r".to_owned(),
        '\x1b' => "\\e".to_owned(),
        '\u{85}' => "\\N".to_owned(),
        '\u{a0}' => "\\_".to_owned(),
        '\u{2028}' => "\\L".to_owned(),
        '\u{2029}' => "\\P".to_owned(),
        c => match u32::from(c) {
            n @ ..=0xff => format!("\\x{n:02X}"),
            n @ ..=0xffff => format!("\\u{n:04X}"),
            n => format!("\\U{n:08X}"),
        },
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

/// Styles in which a text reads as it is.
struct Allowed {
    plain: bool,
    single: bool,
    block: bool,
}

impl Allowed {
    fn of(text: &str) -> Self {
        let mut allowed = Self { plain: true, single: true, block: !text.is_empty() };
        let blank = |c: Option<char>| c.is_none_or(|c| matches!(c, ' ' | '\t'));
        let mut refuse_plain = text.starts_with("---") || text.starts_with("...");
        let mut before: Option<char> = None;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let next = chars.peek().copied();
            refuse_plain |= match (before, c) {
                (
                    None,
                    '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                    | '`',
                ) => true,
                (None, '?' | ':' | '-') | (Some(_), ':') => blank(next),
                (Some(b), '#') => blank(Some(b)) || is_break(b),
                _ => false,
            };
            let edge = before.is_none() || next.is_none();
            if edge && (c == ' ' || is_break(c)) {
                allowed.plain = false;
            }
            if c == ' ' && next.is_none() {
                allowed.block = false;
            }
            if c == ' ' && before.is_some_and(is_break) {
                (allowed.plain, allowed.single) = (false, false);
            }
            if !is_printable(c) || (is_break(c) && before == Some(' ')) {
                allowed = Self { plain: false, single: false, block: false };
            }
            if is_break(c) {
                allowed.plain = false;
            }
            before = Some(c);
        }
        allowed.plain &= !refuse_plain;
        allowed
    }
}

const WORDS: [&str; 36] = [
    "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "n", "N", "no", "No", "NO",
    "false", "False", "FALSE", "off", "Off", "OFF", "", "~", "null", "Null", "NULL", ".nan", ".NaN", ".NAN",
    ".inf", ".Inf", ".INF", "<<", "+.inf", "-.inf",
];

static NUMBERS: LazyLock<Regex> = LazyLock::new(|| {
    let forms = [
        r"[-+]?(0[xX][0-9a-fA-F]{1,16}|0[oO][0-7]{1,21}|0[bB][01]{1,64})",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
        r"[-+]?\.(Inf|INF)",
    ];
    Regex::new(&format!("^({})$", forms.join("|"))).expect("a valid expression")
});

/// Numbers to the base of sixty, which only other parsers read.
static SIXTIES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$").expect("a valid expression")
});

static TIMES: LazyLock<Regex> = LazyLock::new(|| {
    let day = r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})";
    let clock = r"[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]+)?";
    Regex::new(&format!(r"^{day}([Tt]{clock}(Z|[-+][0-9]{{2}}:[0-9]{{2}})| {clock})?$"))
        .expect("a valid expression")
});

/// True for what is read as a text when it stands plain.
fn is_text(text: &str) -> bool {
    if WORDS.contains(&text) {
        return false;
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if !numeric {
        return true;
    }
    let plain = if text.starts_with('.') { text.to_owned() } else { text.replace('_', "") };
    !NUMBERS.is_match(&plain) && !SIXTIES.is_match(text) && !is_time(text)
}

fn is_time(text: &str) -> bool {
    let Some(parts) = TIMES.captures(text) else { return false };
    let number = |i: usize| parts[i].parse::<i16>().unwrap_or(0);
    let (month, day) = (i8::try_from(number(2)).unwrap_or(0), i8::try_from(number(3)).unwrap_or(0));
    jiff::civil::Date::new(number(1), month, day).is_ok()
}

/// Keys are ordered as people count: `a2` before `a10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(i) = a.iter().zip(&b).position(|(x, y)| x != y) else { return a.len().cmp(&b.len()) };
    match (a[i].is_alphabetic(), b[i].is_alphabetic()) {
        (true, true) => return a[i].cmp(&b[i]),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // A number that both begin with counts where one goes on with zeros.
    let begun = (a[i] == '0' || b[i] == '0')
        && a[..i].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
    let number = |chars: &[char]| {
        let digits = chars[i..].iter().take_while(|c| c.is_ascii_digit());
        digits.fold((u64::from(begun), 0_usize), |(n, len), c| {
            (n.wrapping_mul(10).wrapping_add(u64::from(c.to_digit(10).unwrap_or(0))), len + 1)
        })
    };
    number(&a).cmp(&number(&b)).then(a[i].cmp(&b[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn lists_stand_at_the_column_of_their_key() {
        let value = object!({"b": [{"x": 1, "y": [2, []]}, [3, {"z": null}]], "a": {}, "c": "t"});
        let want = "a: {}\nb:\n- x: 1\n  \"y\":\n  - 2\n  - []\n- - 3\n  - z: null\nc: t\n";
        assert_eq!(print(&value), want);
    }

    #[test]
    fn texts_that_look_like_something_else_are_quoted() {
        for (text, want) in [
            ("a b", "a b"),
            ("1", "\"1\""),
            ("1.5", "\"1.5\""),
            ("1.5.1", "1.5.1"),
            ("0x1f", "\"0x1f\""),
            ("1:30", "\"1:30\""),
            ("true", "\"true\""),
            ("", "\"\""),
            ("2024-01-01T00:00:00Z", "\"2024-01-01T00:00:00Z\""),
            ("2024-13-01", "2024-13-01"),
            ("*", "'*'"),
            ("a: b", "'a: b'"),
            ("it's: x", "'it''s: x'"),
            ("a:b", "a:b"),
            ("- a", "'- a'"),
            ("-a", "-a"),
            (" a", "' a'"),
            ("a\tb", "\"a\\tb\""),
            ("é", "é"),
            ("a #b", "'a #b'"),
            ("{a", "'{a'"),
            ("k:{\"name\":\"c\"}", "k:{\"name\":\"c\"}"),
        ] {
            assert_eq!(print(&Value::from(text)), format!("{want}\n"), "{text}");
        }
    }

    #[test]
    fn texts_of_several_lines_are_literal() {
        let value = object!({"a": "x\ny\n", "b": "x\n\ny", "c": " x\n", "d": "x\n\n", "e": "x \ny", "f": 1});
        let want = "a: |\n  x\n  y\nb: |-\n  x\n\n  y\nc: |2\n   x\nd: |+\n  x\n\ne: \"x \\ny\"\nf: 1\n";
        assert_eq!(print(&value), want);
    }

    #[test]
    fn long_texts_are_folded() {
        let word = "word ".repeat(20);
        let printed = print(&object!({"a": (word.trim())}));
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].len() > 80 && lines[0].len() < 90, "{printed}");
        assert!(lines[1].starts_with("  word"));
    }

    #[test]
    fn keys_are_in_natural_order() {
        for pair in [["a2", "a10"], ["a", "ab"], ["1", "a"], ["a.b", "aa"], ["x09", "x10"]] {
            assert_eq!(natural(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }
}
