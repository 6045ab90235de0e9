//! `format`: text with clauses that stand for values.

use super::call::{Call, fits, no_overload, text};
use crate::value::{EvalError, List, Map, Outcome, Val};

/// Most digits behind the point. DIVERGES: upstream takes any number.
const MAX_PRECISION: usize = 1000;
/// Digits behind the point where the clause does not say.
const PRECISION: usize = 6;

/// A float as Go's `%g` writes it.
pub(crate) fn shortest(d: f64) -> String {
    if !d.is_finite() {
        return if d.is_nan() {
            "NaN".into()
        } else if d > 0.0 {
            "+Inf".into()
        } else {
            "-Inf".into()
        };
    }
    let scientific = format!("{d:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) { format!("{d}") } else { go_exponent(mantissa, exponent) }
}

/// Exponents have a sign and two digits at least.
fn go_exponent(mantissa: &str, exponent: i32) -> String {
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// What a clause asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Clause {
    String,
    Decimal,
    Fixed(Option<usize>),
    Scientific(Option<usize>),
    Binary,
    Hex { upper: bool },
    Octal,
}

/// A piece of a format.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece<'f> {
    Text(&'f str),
    Clause(Clause),
}

/// Takes a format apart. The arguments are counted as clauses are met, as the messages depend on what is met first.
pub(crate) fn pieces(format: &str, arguments: usize) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut used = 0;
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        pieces.push(Piece::Text(&rest[..at]));
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('%') {
            pieces.push(Piece::Text("%"));
            rest = after;
            continue;
        }
        if used >= arguments {
            return Err(format!("index {used} out of range"));
        }
        if after.is_empty() {
            return Err("unexpected end of string".into());
        }
        let (clause, length) =
            clause(after).map_err(|e| format!("could not parse formatting clause: {e}"))?;
        pieces.push(Piece::Clause(clause));
        used += 1;
        rest = &after[length..];
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn clause(text: &str) -> Result<(Clause, usize), String> {
    let mut precision = None;
    let mut at = 0;
    if let Some(digits) = text.strip_prefix('.') {
        let wrap = |e: &str| format!("error while parsing precision: {e}");
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        if length == digits.len() {
            return Err(wrap("could not find end of precision specifier"));
        }
        let number = digits[..length].parse::<usize>().ok().filter(|n| *n <= MAX_PRECISION);
        precision = Some(number.ok_or_else(|| wrap("error while converting precision to integer"))?);
        at = 1 + length;
    }
    let letter = text[at..].chars().next().unwrap_or('\0');
    let clause = match letter {
        's' => Clause::String,
        'd' => Clause::Decimal,
        'f' => Clause::Fixed(precision),
        'e' => Clause::Scientific(precision),
        'b' => Clause::Binary,
        'x' | 'X' => Clause::Hex { upper: letter == 'X' },
        'o' => Clause::Octal,
        _ => return Err(format!("unrecognized formatting clause \"{letter}\"")),
    };
    Ok((clause, at + 1))
}

impl Clause {
    /// The message about a value of a type that the clause cannot show.
    pub(crate) fn complaint(self, type_name: &str) -> String {
        let what = match self {
            Clause::String => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, \
                 and timestamps"
            }
            Clause::Decimal => "decimal clause can only be used on integers",
            Clause::Fixed(_) => "fixed-point clause can only be used on doubles",
            Clause::Scientific(_) => "scientific clause can only be used on doubles",
            Clause::Binary => "only integers and bools can be formatted as binary",
            Clause::Hex { .. } => "only integers, byte buffers, and strings can be formatted as hex",
            Clause::Octal => "octal clause can only be used on integers",
        };
        format!("{what}, was given {type_name}")
    }

    fn show(self, v: &Val<'_>) -> Result<String, String> {
        let number = match v {
            Val::Double(d) => Some(*d),
            Val::String(s) => match &**s {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            },
            _ => None,
        };
        Ok(match (self, v, number) {
            (Clause::String, v, _) => return plain(v),
            (Clause::Decimal, Val::Int(n), _) => n.to_string(),
            (Clause::Decimal, Val::Uint(n), _) => n.to_string(),
            (Clause::Fixed(_) | Clause::Scientific(_), _, Some(d)) if !d.is_finite() => if d.is_nan() {
                "NaN"
            } else if d > 0.0 {
                "\u{221e}"
            } else {
                "-\u{221e}"
            }
            .to_owned(),
            (Clause::Fixed(p), _, Some(d)) => grouped(&format!("{d:.*}", p.unwrap_or(PRECISION))),
            (Clause::Scientific(p), _, Some(d)) => {
                let shown = format!("{d:.*e}", p.unwrap_or(PRECISION));
                let (mantissa, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
                let exponent: i32 = exponent.parse().unwrap_or(0);
                format!("{mantissa}\u{d7}10{}", superscript(exponent))
            }
            (Clause::Binary, Val::Int(n), _) => signed(*n, |n| format!("{n:b}")),
            (Clause::Binary, Val::Uint(n), _) => format!("{n:b}"),
            (Clause::Binary, Val::Bool(b), _) => u8::from(*b).to_string(),
            (Clause::Octal, Val::Int(n), _) => signed(*n, |n| format!("{n:o}")),
            (Clause::Octal, Val::Uint(n), _) => format!("{n:o}"),
            (Clause::Hex { upper }, v, _) => {
                let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
                let shown = match v {
                    Val::Int(n) => signed(*n, |n| format!("{n:x}")),
                    Val::Uint(n) => format!("{n:x}"),
                    Val::String(s) => hex(s.as_bytes()),
                    Val::Bytes(b) => hex(b),
                    _ => return Err(self.complaint(v.runtime_type().name())),
                };
                if upper { shown.to_uppercase() } else { shown }
            }
            _ => return Err(self.complaint(v.runtime_type().name())),
        })
    }
}

/// Thousands are set apart, as upstream formats for the locale `en-US`.
fn grouped(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |n| ("-", n));
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(w, f)| (w, Some(f)));
    let mut out = sign.to_owned();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

fn superscript(exponent: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let sign = if exponent < 0 { "⁻" } else { "" };
    let digits = format!("{:02}", exponent.abs());
    sign.chars().chain(digits.bytes().map(|d| DIGITS[usize::from(d - b'0')])).collect()
}

fn signed(n: i64, show: impl Fn(u64) -> String) -> String {
    format!("{}{}", if n < 0 { "-" } else { "" }, show(n.unsigned_abs()))
}

fn plain(v: &Val<'_>) -> Result<String, String> {
    Ok(match v {
        Val::List(list) => show_list(list)?,
        Val::Map(map) => show_map(map)?,
        Val::Bytes(b) => String::from_utf8(b.to_vec()).map_err(|_| {
            "could not convert argument \"invalid UTF-8 in bytes, cannot convert to string\" to string"
                .to_owned()
        })?,
        Val::Null
        | Val::Bool(_)
        | Val::Int(_)
        | Val::Uint(_)
        | Val::Double(_)
        | Val::String(_)
        | Val::Timestamp(_)
        | Val::Duration(_)
        | Val::Type(_) => v.to_string(),
        _ => return Err(Clause::String.complaint(v.runtime_type().name())),
    })
}

/// A value inside of a list or a map.
fn member(v: &Val<'_>) -> Result<String, String> {
    Ok(match v {
        Val::String(s) => format!("{:?}", &**s),
        Val::Bytes(_) => format!("b{:?}", plain(v)?),
        Val::Double(d) if !d.is_finite() => format!("{:?}", shortest(*d)),
        Val::Double(d) => format!("{d:.6}"),
        Val::Timestamp(_) => format!("timestamp({:?})", v.to_string()),
        Val::Duration(_) => format!("duration({:?})", v.to_string()),
        Val::Null | Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Type(_) | Val::List(_) | Val::Map(_) => {
            plain(v)?
        }
        _ => return Err(format!("no formatting function for {}", v.runtime_type().name())),
    })
}

fn show_list(list: &List<'_>) -> Result<String, String> {
    let items: Result<Vec<String>, String> =
        list.iter().map(|item| member(&item.map_err(|e| e.to_string())?)).collect();
    Ok(format!("[{}]", items?.join(", ")))
}

fn show_map(map: &Map<'_>) -> Result<String, String> {
    let mut entries = Vec::new();
    for (key, value) in map.iter() {
        let key = match &key {
            Val::String(_) | Val::Bool(_) | Val::Int(_) | Val::Uint(_) => member(&key)?,
            _ => {
                return Err(format!(
                    "no formatting function for map key of type {}",
                    key.runtime_type().name()
                ));
            }
        };
        entries.push((key, member(&value.map_err(|e| e.to_string())?)?));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let shown: Vec<String> = entries.into_iter().map(|(k, v)| format!("{k}:{v}")).collect();
    Ok(format!("{{{}}}", shown.join(", ")))
}

/// `format.format(arguments)`
pub(crate) fn format_call<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::String(format), Val::List(arguments)] = args else { return no_overload() };
    let mut out = String::new();
    let mut arguments_left = arguments.iter();
    for piece in pieces(format, arguments.len()).map_err(EvalError::new)? {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Clause(clause) => {
                let value = arguments_left.next().unwrap_or(Ok(Val::Null))?;
                let shown = clause.show(&value).map_err(|e| format!("error during formatting: {e}"));
                out.push_str(&shown.map_err(EvalError::new)?);
            }
        }
        fits(out.len())?;
    }
    text(out)
}
