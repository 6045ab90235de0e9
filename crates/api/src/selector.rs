//! Label and field selectors: parsing, matching and printing.
//!
//! Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors> and
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/>.

use std::fmt;

use crate::names;
use crate::value::Value;

/// A conjunction of requirements on labels; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// One requirement on the label `key`.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How its value is compared.
    pub operator: Operator,
}

/// How a label's value is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    /// The label has the value.
    Equals(String),
    /// The label is absent or has another value.
    NotEquals(String),
    /// The label is there with one of the values.
    In(Vec<String>),
    /// The label is absent or has none of the values.
    NotIn(Vec<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is an integer above the bound.
    GreaterThan(i64),
    /// The label is an integer below the bound.
    LessThan(i64),
}

impl Requirement {
    /// True when the requirement holds for the label's value (none when the label is absent).
    pub fn matches(&self, value: Option<&str>) -> bool {
        let integer = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::Equals(wanted) => value == Some(wanted.as_str()),
            Operator::NotEquals(other) => value != Some(other.as_str()),
            Operator::In(set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
            Operator::NotIn(set) => value.is_none_or(|v| !set.iter().any(|s| s == v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(n) => integer().is_some_and(|v| v > *n),
            Operator::LessThan(n) => integer().is_some_and(|v| v < *n),
        }
    }
}

impl LabelSelector {
    /// The selector of these requirements.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// Reads the query syntax: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>3`. The error is upstream's sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { requirements: Parser::new(text).requirements()? })
    }

    /// Reads a `LabelSelector` object (`matchLabels`, `matchExpressions`). Null selects nothing and gives none.
    pub fn from_object(selector: &Value) -> Result<Option<Self>, String> {
        if selector.is_null() {
            return Ok(None);
        }
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").as_object().into_iter().flat_map(|m| m.iter()) {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement { key: key.to_owned(), operator: Operator::Equals(value) });
        }
        for e in selector.array_at(&["matchExpressions"]) {
            let values: Vec<String> =
                e.array_at(&["values"]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            let operator = match e.str_at(&["operator"]) {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(format!(
                        "{} is not a valid label selector operator",
                        crate::field::go_quote(other)
                    ));
                }
            };
            requirements.push(Requirement { key: e.str_at(&["key"]).to_owned(), operator });
        }
        Ok(Some(Self { requirements }))
    }

    /// The selector of a plain map of labels, as in `spec.selector` of a Service.
    pub fn from_map(labels: &Value) -> Self {
        let members = labels.as_object().into_iter().flat_map(|m| m.iter());
        let one = |v: &Value| Operator::Equals(v.as_str().unwrap_or_default().to_owned());
        Self {
            requirements: members.map(|(k, v)| Requirement { key: k.to_owned(), operator: one(v) }).collect(),
        }
    }

    /// True when every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True when all requirements hold for labels looked up by `get`.
    pub fn matches<'l>(&self, get: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// True when all requirements hold for the labels of an object.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(|key| object.label(key))
    }

    /// True when all requirements hold for a map of labels.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.matches(|key| labels.get(key).as_str())
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for (i, r) in sorted.into_iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let set = |values: &[String]| {
                let mut sorted = values.to_vec();
                sorted.sort();
                sorted.join(",")
            };
            match &r.operator {
                Operator::Equals(v) => write!(f, "{}={v}", r.key)?,
                Operator::NotEquals(v) => write!(f, "{}!={v}", r.key)?,
                Operator::In(v) => write!(f, "{} in ({})", r.key, set(v))?,
                Operator::NotIn(v) => write!(f, "{} notin ({})", r.key, set(v))?,
                Operator::Exists => f.write_str(&r.key)?,
                Operator::DoesNotExist => write!(f, "!{}", r.key)?,
                Operator::GreaterThan(n) => write!(f, "{}>{n}", r.key)?,
                Operator::LessThan(n) => write!(f, "{}<{n}", r.key)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'t> {
    Word(&'t str),
    Symbol(&'t str),
    End,
}

impl Token<'_> {
    fn text(&self) -> &str {
        match self {
            Token::Word(t) | Token::Symbol(t) => t,
            Token::End => "",
        }
    }
}

struct Parser<'t> {
    rest: &'t str,
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ",", "(", ")", ">", "<"];

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Self { rest: text }
    }

    fn peek(&self) -> (Token<'t>, &'t str) {
        let rest = self.rest.trim_start();
        if rest.is_empty() {
            return (Token::End, rest);
        }
        if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            return (Token::Symbol(&rest[..symbol.len()]), &rest[symbol.len()..]);
        }
        let end = rest.find(|c: char| c.is_whitespace() || "=!,()><".contains(c)).unwrap_or(rest.len());
        (Token::Word(&rest[..end]), &rest[end..])
    }

    fn next(&mut self) -> Token<'t> {
        let (token, rest) = self.peek();
        self.rest = rest;
        token
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut out = Vec::new();
        loop {
            match self.peek().0 {
                Token::Word(_) | Token::Symbol("!") => {}
                Token::End if out.is_empty() => return Ok(out),
                other if out.is_empty() => {
                    return Err(format!(
                        "found '{}', expected: !, identifier, or 'end of string'",
                        other.text()
                    ));
                }
                other => return Err(format!("found '{}', expected: identifier after ','", other.text())),
            }
            out.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
            match self.next() {
                Token::End => return Ok(out),
                Token::Symbol(",") => {}
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek().0 == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        check_key(key)?;
        let key = key.to_owned();
        if negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist });
        }
        let operator = match self.peek().0 {
            Token::End | Token::Symbol(",") => Operator::Exists,
            Token::Symbol(op @ ("=" | "==" | "!=" | ">" | "<")) => {
                self.next();
                self.comparison(&key, op)?
            }
            Token::Word("in") => {
                self.next();
                Operator::In(self.set(&key)?)
            }
            Token::Word("notin") => {
                self.next();
                Operator::NotIn(self.set(&key)?)
            }
            other => {
                return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text()));
            }
        };
        Ok(Requirement { key, operator })
    }

    fn comparison(&mut self, key: &str, op: &str) -> Result<Operator, String> {
        let value = match self.peek().0 {
            Token::End | Token::Symbol(",") => "",
            Token::Word(v) => {
                self.next();
                v
            }
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        if matches!(op, ">" | "<") {
            let n = value.parse::<i64>().map_err(|_| {
                let value = crate::field::go_quote(value);
                format!("values[0]: Invalid value: {value}: for 'Gt', 'Lt' operators, the value must be an integer")
            })?;
            check_value(key, value, 0)?;
            return Ok(if op == ">" { Operator::GreaterThan(n) } else { Operator::LessThan(n) });
        }
        check_value(key, value, 0)?;
        let value = value.to_owned();
        Ok(if op == "!=" { Operator::NotEquals(value) } else { Operator::Equals(value) })
    }

    fn set(&mut self, key: &str) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values = std::collections::BTreeSet::new();
        match self.peek().0 {
            Token::Word(_) | Token::Symbol("," | ")") => {}
            other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
        }
        let mut expect_value = true;
        loop {
            match self.next() {
                Token::Word(v) if expect_value => {
                    values.insert(v);
                    expect_value = false;
                }
                Token::Symbol(symbol @ ("," | ")")) => {
                    if expect_value {
                        values.insert("");
                    }
                    if symbol == ")" {
                        break;
                    }
                    expect_value = true;
                }
                other if expect_value => {
                    return Err(format!("found '{}', expected: ',', or identifier", other.text()));
                }
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
        let wrong: Vec<String> =
            values.iter().enumerate().filter_map(|(i, v)| check_value(key, v, i).err()).collect();
        match wrong.as_slice() {
            [] => Ok(values.into_iter().map(str::to_owned).collect()),
            [one] => Err(one.clone()),
            all => Err(format!("[{}]", all.join(", "))),
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    match names::qualified_name(key).first() {
        Some(e) => Err(format!("<nil>: Invalid value: {}: {e}", crate::field::go_quote(key))),
        None => Ok(()),
    }
}

fn check_value(key: &str, value: &str, at: usize) -> Result<(), String> {
    match names::label_value(value).first() {
        Some(e) => Err(format!("values[{at}][{key}]: Invalid value: {}: {e}", crate::field::go_quote(value))),
        None => Ok(()),
    }
}

/// A conjunction of comparisons of fields with texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector {
    /// The terms.
    pub terms: Vec<FieldTerm>,
}

/// One comparison: `metadata.name=x` or `spec.nodeName!=x`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldTerm {
    /// The field's path, as clients write it.
    pub field: String,
    /// What it is compared with.
    pub value: String,
    /// True for `=`, false for `!=`.
    pub equal: bool,
}

impl FieldSelector {
    /// Reads `a=b,c!=d`; backslash escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let invalid = || format!("invalid selector: '{text}'; can't understand '{term}'");
            let (at, op) = find_operator(term).ok_or_else(invalid)?;
            let value = unescape(&term[at + op.len()..]);
            terms.push(FieldTerm {
                field: term[..at].to_owned(),
                value: value.map_err(|why| format!("invalid field selector: {why}"))?,
                equal: op != "!=",
            });
        }
        Ok(Self { terms })
    }

    /// True when every object matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// True when all terms hold for fields looked up by `get`.
    pub fn matches<'v>(&self, get: impl Fn(&str) -> &'v str) -> bool {
        self.terms.iter().all(|t| (get(&t.field) == t.value) == t.equal)
    }

    /// The value that `field` must have, if a term says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, t) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}{}", t.field, if t.equal { "=" } else { "!=" })?;
            for c in t.value.chars() {
                let escape = if matches!(c, ',' | '=' | '\\') { "\\" } else { "" };
                write!(f, "{escape}{c}")?;
            }
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c: char| {
        let split = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        split
    })
}

fn find_operator(term: &str) -> Option<(usize, &'static str)> {
    let mut escaped = false;
    for (i, c) in term.char_indices() {
        if !escaped && let Some(op) = ["!=", "==", "="].into_iter().find(|op| term[i..].starts_with(op)) {
            return Some((i, op));
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ (',' | '=' | '\\')) => out.push(c),
                other => {
                    let after = other.map(String::from).unwrap_or_default();
                    return Err(format!("invalid escape sequence: \\{after}"));
                }
            },
            ',' | '=' => return Err(format!("unescaped character in value: {}", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object;

    fn check(selector: &str, labels: &Value, want: bool) {
        assert_eq!(LabelSelector::parse(selector).unwrap().matches_labels(labels), want, "{selector}");
    }

    #[test]
    fn label_selectors_match_as_documented() {
        let labels = object!({"env": "prod", "tier": "web", "n": "5"});
        check("", &labels, true);
        check("env=prod,tier!=db", &labels, true);
        check("env == prod", &labels, true);
        check("env in (qa, prod)", &labels, true);
        check("env notin (prod)", &labels, false);
        check("absent notin (x)", &labels, true);
        check("absent!=x", &labels, true);
        check("env,!absent", &labels, true);
        check("n>4,n<6", &labels, true);
        check("empty=", &labels, false);
    }

    #[test]
    fn malformed_label_selectors_are_refused() {
        let cases = [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (b,", "unable to parse requirement: found '', expected: ',', or identifier"),
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            ("a,,b", "found ',', expected: identifier after ','"),
            ("a,", "found '', expected: identifier after ','"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("x y", "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"),
            ("=x", "found '=', expected: !, identifier, or 'end of string'"),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ];
        for (bad, why) in cases {
            assert_eq!(LabelSelector::parse(bad).unwrap_err(), why, "{bad}");
        }
        let key = LabelSelector::parse("-a=b").unwrap_err();
        assert!(
            key.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part"),
            "{key}"
        );
        let number = LabelSelector::parse("a>-1").unwrap_err();
        assert!(
            number.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-1\""),
            "{number}"
        );
        let value = LabelSelector::parse("a in (b,-c)").unwrap_err();
        assert!(
            value.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-c\""),
            "{value}"
        );
    }

    #[test]
    fn field_selectors_escape() {
        let s = FieldSelector::parse(r"metadata.name=a\,b,spec.nodeName!=c").unwrap();
        assert_eq!(s.exact("metadata.name"), Some("a,b"));
        assert_eq!(s.to_string(), r"metadata.name=a\,b,spec.nodeName!=c");
        assert!(s.matches(|f| if f == "metadata.name" { "a,b" } else { "" }));
        for (bad, why) in [
            ("nonsense", "invalid selector: 'nonsense'; can't understand 'nonsense'"),
            (r"a=b\x", r"invalid field selector: invalid escape sequence: \x"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(FieldSelector::parse(bad).unwrap_err(), why);
        }
    }

    #[test]
    fn selectors_print_in_key_order() {
        let s = LabelSelector::parse("b notin (2,1),a=x,!c,d in (e)").unwrap();
        assert_eq!(s.to_string(), "a=x,b notin (1,2),!c,d in (e)");
    }
}
