//! What is looked at once the types fit: constants that cannot be converted, patterns that cannot be compiled, lists and
//! maps of mixed types.

use crate::ast::{Expr, Kind, Literal};
use crate::checker::Checked;
use crate::library::format::{Clause, Piece, pieces};
use crate::source::Reporter;
use crate::types::Type;

pub(crate) fn validate(checked: &Checked, report: &mut Reporter) {
    let root = &checked.ast.root;
    for function in ["duration", "timestamp", "matches"] {
        root.walk(&mut |e| literal_argument(checked, e, function, report));
    }
    homogeneous(checked, root, false, report);
    root.walk(&mut |e| format_call(checked, e, report));
}

/// A constant format has clauses for its arguments, and of the right types.
fn format_call(checked: &Checked, e: &Expr, report: &mut Reporter) {
    let Kind::Call { function, target: Some(target), args } = &e.kind else { return };
    let (Kind::Literal(Literal::String(format)), [Expr { kind: Kind::List(arguments), .. }]) =
        (&target.kind, args.as_slice())
    else {
        return;
    };
    if function != "format" {
        return;
    }
    let place = checked.ast.place(e.id);
    let pieces = match pieces(format, arguments.len()) {
        Ok(pieces) => pieces,
        Err(message) => return report.at(place, message),
    };
    let mut used = 0;
    for piece in pieces {
        let Piece::Clause(clause) = piece else { continue };
        let Some(bad) = unfit(checked, clause, &arguments[used].0) else {
            used += 1;
            continue;
        };
        let complaint = clause.complaint(checked.type_of(bad).name());
        return report.at(checked.ast.place(bad.id), format!("error during formatting: {complaint}"));
    }
    if arguments.len() > used {
        let got = arguments.len();
        report
            .at(place, format!("too many arguments supplied to string.format (expected {used}, got {got})"));
    }
}

/// The part of an argument that a clause cannot show.
fn unfit<'e>(checked: &Checked, clause: Clause, e: &'e Expr) -> Option<&'e Expr> {
    let t = checked.type_of(e);
    let fits = match (clause, t) {
        (_, Type::Dyn)
        | (Clause::Decimal | Clause::Octal | Clause::Binary | Clause::Hex { .. }, Type::Int | Type::Uint) => {
            true
        }
        (Clause::String, t) => !matches!(t, Type::Struct(_) | Type::Opaque(..) | Type::Error),
        (Clause::Fixed(_) | Clause::Scientific(_), t) => matches!(t, Type::Double | Type::String),
        (Clause::Binary, t) => *t == Type::Bool,
        (Clause::Hex { .. }, t) => matches!(t, Type::String | Type::Bytes),
        _ => false,
    };
    if !fits {
        return Some(e);
    }
    match (clause, &e.kind) {
        (Clause::String, Kind::List(_) | Kind::Map(_)) => {
            e.children().into_iter().find_map(|child| unfit(checked, clause, child))
        }
        _ => None,
    }
}

fn literal_argument(checked: &Checked, e: &Expr, wanted: &str, report: &mut Reporter) {
    let Kind::Call { function, args, .. } = &e.kind else { return };
    if function != wanted {
        return;
    }
    let Some(Expr { id, kind: Kind::Literal(literal), .. }) = args.first() else { return };
    let valid = match (wanted, literal) {
        ("matches", Literal::String(pattern)) => crate::library::regex::compile(pattern).is_ok(),
        ("duration", Literal::String(text)) => crate::library::time::parse_duration(text).is_some(),
        ("timestamp", Literal::String(text)) => crate::library::time::parse_timestamp(text).is_some(),
        ("timestamp", Literal::Int(seconds)) => crate::library::time::from_unix(*seconds).is_some(),
        _ => true,
    };
    if !valid {
        report.at(checked.ast.place(*id), format!("invalid {wanted} argument"));
    }
}

/// Lists and maps have elements of one type, other than in the arguments of `format`.
fn homogeneous(checked: &Checked, e: &Expr, exempt: bool, report: &mut Reporter) {
    let exempt = exempt || matches!(&e.kind, Kind::Call { function, .. } if function == "format");
    let mut same = |nodes: &mut dyn Iterator<Item = (&Expr, bool)>, all: bool| {
        let mut first: Option<&Type> = None;
        for (node, optional) in nodes {
            let t = checked.type_of(node);
            let t = if optional { t.unwrap_optional().unwrap_or(t) } else { t };
            let wanted = *first.get_or_insert(t);
            if wanted != t {
                report.at(checked.ast.place(node.id), format!("expected type '{wanted}' but found '{t}'"));
                if !all {
                    return;
                }
            }
        }
    };
    match &e.kind {
        Kind::List(elements) if !exempt => same(&mut elements.iter().map(|(e, o)| (e, *o)), false),
        Kind::Map(entries) if !exempt => {
            same(&mut entries.iter().map(|e| (&e.key, false)), true);
            same(&mut entries.iter().map(|e| (&e.value, e.optional)), true);
        }
        _ => {}
    }
    for child in e.children() {
        homogeneous(checked, child, exempt, report);
    }
}
