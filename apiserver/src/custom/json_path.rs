//! JSONPath as Kubernetes writes it in columns and selectable fields: `.spec.size`, `.status.conditions[?(@.type=="Ready")].status`.
//!
//! Source: <https://kubernetes.io/docs/reference/kubectl/jsonpath/>.

use api::Value;

/// Paths are as long as people write them.
const MAX_STEPS: usize = 100;
/// As many values as a path may find.
const MAX_FOUND: usize = 10_000;

/// A path into an object.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// `.name` or `['name']`
    Member(String),
    /// `[2]`, from the end when negative
    Index(i64),
    /// `[1:3]`, `[::2]`
    Slice { from: Option<i64>, to: Option<i64>, step: i64 },
    /// `.*` or `[*]`
    Any,
    /// `..`: everything below
    Below,
    /// `['a','b']`, `[0,2]`
    Union(Vec<Step>),
    /// `[?(@.type=="Ready")]`
    Filter { left: Operand, operator: Operator, right: Operand },
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// The left side is there.
    Exists,
}

struct Parser<'t> {
    rest: &'t str,
}

impl JsonPath {
    /// Reads a path without braces. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.trim().trim_start_matches(['$', '@']) };
        let mut steps = Vec::new();
        while !parser.rest.is_empty() {
            if steps.len() >= MAX_STEPS {
                return Err("the path is too long".to_owned());
            }
            parser.step(&mut steps)?;
        }
        Ok(Self { steps })
    }

    /// All values that the path leads to.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![root];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.apply(value, &mut next);
            }
            next.truncate(MAX_FOUND);
            found = next;
        }
        found
    }
}

impl<'t> Parser<'t> {
    fn step(&mut self, steps: &mut Vec<Step>) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("..") {
            self.rest = rest;
            steps.push(Step::Below);
            if !rest.starts_with('[') {
                let name = self.name()?;
                steps.push(name);
            }
        } else if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            // A dot before a bracket says nothing, nor does one that is all there is.
            if !rest.starts_with('[') && !rest.is_empty() {
                let name = self.name()?;
                steps.push(name);
            }
        } else if let Some(rest) = self.rest.strip_prefix('[') {
            let end = closing(rest).ok_or("unterminated array")?;
            self.rest = &rest[end + 1..];
            steps.push(bracket(rest[..end].trim())?);
        } else {
            let name = self.name()?;
            steps.push(name);
        }
        Ok(())
    }

    /// A member's name up to the next dot or bracket; a backslash takes the next character as it is.
    fn name(&mut self) -> Result<Step, String> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = i;
                    break;
                }
                ' ' | '\t' | '\n' | '{' | '}' | ']' | '(' | ')' | '"' | '\'' | '=' | '!' | '<' | '>'
                | '|' | '&' => {
                    return Err(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32));
                }
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        match name.as_str() {
            "" => Err("unexpected end of the path".to_owned()),
            "*" => Ok(Step::Any),
            _ => Ok(Step::Member(name)),
        }
    }
}

/// Where the bracket that was opened before `text` closes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match (quote, c) {
            (_, '\\') => {
                chars.next();
            }
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::Any);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return filter_of(filter.trim());
    }
    // Names stand in single quotes, unlike the texts of filters.
    if let Some(name) = quoted(text).filter(|_| text.starts_with('\'')) {
        return Ok(Step::Member(name));
    }
    if text.contains(',') {
        return text.split(',').map(|t| bracket(t.trim())).collect::<Result<_, _>>().map(Step::Union);
    }
    let invalid = || format!("invalid array index {text}");
    let number = |t: &str| -> Result<Option<i64>, String> {
        if t.is_empty() { Ok(None) } else { t.trim().parse().map(Some).map_err(|_| invalid()) }
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [index] => number(index)?.map(Step::Index).ok_or_else(invalid),
        [from, to] => Ok(Step::Slice { from: number(from)?, to: number(to)?, step: 1 }),
        [from, to, step] => {
            let step = number(step)?.unwrap_or(1);
            if step <= 0 {
                return Err("step must be > 0".to_owned());
            }
            Ok(Step::Slice { from: number(from)?, to: number(to)?, step })
        }
        _ => Err(invalid()),
    }
}

/// The text within quotes, if these are around all of it.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.get(1..)?.strip_suffix(quote)?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c if c == quote => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

fn filter_of(text: &str) -> Result<Step, String> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, _) => {
                let found = OPERATORS.iter().find(|(sign, _)| text[i..].starts_with(sign));
                let Some((sign, operator)) = found else { continue };
                let (left, right) = (operand(text[..i].trim())?, operand(text[i + sign.len()..].trim())?);
                return Ok(Step::Filter { left, operator: *operator, right });
            }
        }
    }
    let right = Operand::Literal(Value::Null);
    Ok(Step::Filter { left: operand(text)?, operator: Operator::Exists, right })
}

fn operand(text: &str) -> Result<Operand, String> {
    if let Some(text) = quoted(text) {
        return Ok(Operand::Literal(text.into()));
    }
    let literal = match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" | "nil" => Value::Null,
        _ => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(n), _) => Value::Int(n),
            (_, Ok(n)) => Value::Float(n),
            _ => return JsonPath::parse(text).map(Operand::Path),
        },
    };
    Ok(Operand::Literal(literal))
}

impl Step {
    fn apply<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) {
        match (self, value) {
            (Step::Member(name), Value::Object(map)) => out.extend(map.get(name)),
            (Step::Index(n), Value::Array(items)) => {
                out.extend(place(*n, items.len()).and_then(|i| items.get(i)))
            }
            (Step::Slice { from, to, step }, Value::Array(items)) => {
                let bound = |n: &Option<i64>, absent: usize| {
                    n.map_or(absent, |n| {
                        let n = if n < 0 { n + items.len() as i64 } else { n };
                        usize::try_from(n).unwrap_or(0).min(items.len())
                    })
                };
                let (from, to) = (bound(from, 0), bound(to, items.len()));
                let every = usize::try_from(*step).unwrap_or(1).max(1);
                out.extend(items.get(from..to).unwrap_or_default().iter().step_by(every));
            }
            (Step::Any, Value::Array(items)) => out.extend(items),
            (Step::Any, Value::Object(map)) => out.extend(map.values()),
            (Step::Below, value) => below(value, out),
            (Step::Union(steps), value) => steps.iter().for_each(|s| s.apply(value, out)),
            (Step::Filter { left, operator, right }, Value::Array(items)) => {
                out.extend(items.iter().filter(|item| holds(left, *operator, right, item)));
            }
            _ => {}
        }
    }
}

fn place(n: i64, len: usize) -> Option<usize> {
    usize::try_from(if n < 0 { n + len as i64 } else { n }).ok()
}

fn below<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    if out.len() >= MAX_FOUND {
        return;
    }
    out.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|v| below(v, out)),
        Value::Object(map) => map.values().for_each(|v| below(v, out)),
        _ => {}
    }
}

fn holds(left: &Operand, operator: Operator, right: &Operand, item: &Value) -> bool {
    let value = |operand: &Operand| match operand {
        Operand::Literal(value) => Some(value.clone()),
        Operand::Path(path) => path.find(item).first().map(|v| (*v).clone()),
    };
    let left = value(left);
    if operator == Operator::Exists {
        return left.is_some();
    }
    let (Some(left), Some(right)) = (left, value(right)) else { return false };
    let order = match (&left, &right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => number(a).zip(number(b)).and_then(|(a, b)| a.partial_cmp(&b)),
    };
    match operator {
        Operator::Equal => left == right || order.is_some_and(|o| o.is_eq()),
        Operator::NotEqual => left != right && !order.is_some_and(|o| o.is_eq()),
        Operator::Less => order.is_some_and(|o| o.is_lt()),
        Operator::LessOrEqual => order.is_some_and(|o| o.is_le()),
        Operator::Greater => order.is_some_and(|o| o.is_gt()),
        Operator::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
        Operator::Exists => true,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(n) => Some(*n as f64),
        Value::Float(n) => Some(*n),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, want: &str) {
        let object = api::json::decode(
            br#"{"a":{"b.c":1,"d":[10,20,30]},"conditions":[{"type":"Ready","status":"True","n":1},{"type":"Bad","status":"False","n":5}],"e":null}"#,
        );
        let object = object.unwrap().value;
        let found = match JsonPath::parse(path) {
            Ok(path) => path.find(&object).iter().map(|v| v.to_string()).collect::<Vec<_>>().join(" "),
            Err(e) => format!("error: {e}"),
        };
        assert_eq!(found, want, "{path}");
    }

    #[test]
    fn paths_find_what_kubectl_finds() {
        check(".a.d[0]", "10");
        check(".a.d[-1]", "30");
        check(".a.d[1:]", "20 30");
        check(".a.d[::2]", "10 30");
        check(".a.d[0,2]", "10 30");
        check(".a.d[*]", "10 20 30");
        check(r".a.b\.c", "1");
        check(".a['b.c']", "1");
        check("a.d[1]", "20");
        check(".e", "null");
        check(".none.more", "");
        check(r#".conditions[?(@.type=="Ready")].status"#, r#""True""#);
        check(".conditions[?(@.type!='Ready')].status", r#""False""#);
        check(".conditions[?(@.n>=2)].type", r#""Bad""#);
        check(".conditions[?(@.n)].n", "1 5");
        check("..type", r#""Ready" "Bad""#);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        check(".a[", "error: unterminated array");
        check(".a[x]", "error: invalid array index x");
        check(r#".a["x"]"#, r#"error: invalid array index "x""#);
        check(".a.d[::0]", "error: step must be > 0");
        check(".a..", "error: unexpected end of the path");
        check(".a b", "error: unrecognized character in action: U+0020 ' '");
    }
}
