use super::{Syntax, parse};
use crate::ast::{Expr, Kind, Literal};

const ALL: Syntax = Syntax { optional: true, two_variables: true, sort_by: true, bind: true };

/// The tree in brackets, each node with what it does first.
fn show(e: &Expr) -> String {
    let all = |list: &[Expr]| list.iter().map(|e| format!(" {}", show(e))).collect::<String>();
    match &e.kind {
        Kind::Literal(Literal::String(s)) => format!("{s:?}"),
        Kind::Literal(Literal::Bytes(b)) => format!("b{:?}", b.as_ref()),
        Kind::Literal(Literal::Int(n)) => n.to_string(),
        Kind::Literal(Literal::Uint(n)) => format!("{n}u"),
        Kind::Literal(Literal::Double(n)) => format!("{n:?}"),
        Kind::Literal(Literal::Bool(b)) => b.to_string(),
        Kind::Literal(Literal::Null) => "null".into(),
        Kind::Ident(name) => name.clone(),
        Kind::Select { operand, field, test } => {
            format!("{}.{field}{}", show(operand), if *test { "~" } else { "" })
        }
        Kind::Call { function, target: None, args } => format!("({function}{})", all(args)),
        Kind::Call { function, target: Some(target), args } => {
            format!("({}:{function}{})", show(target), all(args))
        }
        Kind::List(elements) => {
            let elements: Vec<_> =
                elements.iter().map(|(e, o)| format!("{}{}", if *o { "?" } else { "" }, show(e))).collect();
            format!("[{}]", elements.join(" "))
        }
        Kind::Map(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|e| format!("{}{}={}", if e.optional { "?" } else { "" }, show(&e.key), show(&e.value)))
                .collect();
            format!("{{{}}}", entries.join(" "))
        }
        Kind::Struct { name, fields } => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{}={}", f.name, show(&f.value))).collect();
            format!("{name}{{{}}}", fields.join(" "))
        }
        Kind::Comprehension(c) => format!(
            "fold({} {}{} {}={} while {} do {} then {})",
            show(&c.range),
            c.var,
            c.var2.as_ref().map_or(String::new(), |v| format!(",{v}")),
            c.accu,
            show(&c.init),
            show(&c.condition),
            show(&c.step),
            show(&c.result)
        ),
        Kind::Error => "!".into(),
    }
}

fn check(text: &str, expected: &str) {
    match parse(text, ALL) {
        Ok(ast) => assert_eq!(show(&ast.root), expected, "{text}"),
        Err(issues) => assert_eq!(issues.to_string(), expected, "{text}"),
    }
}

#[test]
fn operators_bind_as_the_grammar_says() {
    check("1 + 2 * 3 - 4 % 5", "(_-_ (_+_ 1 (_*_ 2 3)) (_%_ 4 5))");
    check("a == b && c < d || e in f", "(_||_ (_&&_ (_==_ a b) (_<_ c d)) (@in e f))");
    check("a ? b : c ? d : e", "(_?_:_ a b (_?_:_ c d e))");
    check("!!a", "a");
    check("!!!a.b", "(!_ a.b)");
    check("-(-a)", "(-_ (-_ a))");
    check("-9223372036854775808", "-9223372036854775808");
    check("1 -1", "(_-_ 1 1)");
    check("a || b || c || d || e", "(_||_ (_||_ (_||_ a b) c) (_||_ d e))");
    check("x.y[1].z(2, 'q').w", "((_[_] x.y 1):z 2 \"q\").w");
    check("a.b.C{d: 1, e: .f}", "a.b.C{d=1 e=.f}");
    check("[1, ?x, ] == {'a': 1u, ?2: 0x10}", "(_==_ [1 ?x] {\"a\"=1u ?2=16})");
    check("a.?b[?0]", "(_[?_] (_?._ a \"b\") 0)");
    check("1e3 + .5 + 1.5e-1 // comment", "(_+_ (_+_ 1000.0 0.5) 0.15)");
}

#[test]
fn strings_are_unescaped() {
    check(r#"'a\n\x41\u00e9\U0001F600\101'"#, "\"a\\nAé😀A\"");
    check(r#"r'a\n' + R"\d""#, r#"(_+_ "a\\n" "\\d")"#);
    check("'''a'b\n''' + \"\"\"c\"\"\"", "(_+_ \"a'b\\n\" \"c\")");
    check(r#"b'\xff\377é' + br'\x'"#, "(_+_ b[255, 255, 195, 169] b[92, 120])");
    check(r"'\ud800'", "ERROR: <input>:1:1: invalid unicode code point\n | '\\ud800'\n | ^");
}

#[test]
fn macros_become_folds() {
    check("has(a.b)", "a.b~");
    check(
        "l.all(x, x > 0)",
        "fold(l x @result=true while (@not_strictly_false @result) do (_&&_ @result (_>_ x 0)) then @result)",
    );
    check(
        "l.exists_one(i, v, v)",
        "fold(l i,v @result=0 while true do (_?_:_ v (_+_ @result 1) @result) then (_==_ @result 1))",
    );
    check(
        "l.map(x, x > 1, x * 2)",
        "fold(l x @result=[] while true do (_?_:_ (_>_ x 1) (_+_ @result [(_*_ x 2)]) @result) then @result)",
    );
    check(
        "m.transformMap(k, v, v + 1)",
        "fold(m k,v @result={} while true do (cel.@mapInsert @result k (_+_ v 1)) then @result)",
    );
    check("cel.bind(x, 1, x + x)", "fold([] #unused x=1 while false do x then (_+_ x x))");
    check(
        "a.optMap(x, x.y)",
        "(_?_:_ (a:hasValue) (optional.of fold([] #unused x=(a:value) while false do x then x.y)) (optional.none))",
    );
    check("f.map(x)", "(f:map x)");
    check("has(a)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(a)\n | ....^");
    check(
        "l.all(x.y, true)",
        "ERROR: <input>:1:8: argument must be a simple name\n | l.all(x.y, true)\n | .......^",
    );
    check(
        "l.all(i, i, true)",
        "ERROR: <input>:1:10: duplicate variable name: i\n | l.all(i, i, true)\n | .........^",
    );
}

#[test]
fn mistakes_are_shown_where_they_are() {
    check(
        "1 +",
        "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', \
         'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
    );
    check(
        "1 + 2\n3 +",
        "ERROR: <input>:2:1: Syntax error: mismatched input '3' expecting <EOF>\n | 3 +\n | ^",
    );
    check(
        "1 = 2",
        "ERROR: <input>:1:3: Syntax error: token recognition error at: '= '\n | 1 = 2\n | ..^\n\
         ERROR: <input>:1:5: Syntax error: extraneous input '2' expecting <EOF>\n | 1 = 2\n | ....^",
    );
    for (text, message) in [
        ("a.true", "1:3: Syntax error: mismatched input 'true' expecting IDENTIFIER"),
        (
            "t{>C}",
            "1:3: Syntax error: extraneous input '>' expecting {'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}",
        ),
        ("t{>C}", "1:5: Syntax error: mismatched input '}' expecting ':'"),
        ("f('x'", "1:6: Syntax error: missing ')' at '<EOF>'"),
        ("g(f('x'", "1:8: Syntax error: mismatched input '<EOF>' expecting ')'"),
        ("a ? (b", "1:7: Syntax error: mismatched input '<EOF>' expecting ')'"),
        ("x in [1, 2,", "1:12: Syntax error: missing ']' at '<EOF>'"),
        ("x in [1, 2", "1:11: Syntax error: mismatched input '<EOF>' expecting {']', ','}"),
        ("[1,,]", "1:4: Syntax error: extraneous input ',' expecting ']'"),
        ("{1: 5 2: 6}", "1:7: Syntax error: mismatched input '2' expecting {'}', ','}"),
        ("f(x])", "1:4: Syntax error: extraneous input ']' expecting ')'"),
        ("1 + * a", "1:5: Syntax error: extraneous input '*' expecting {'[', '{', '(', '.'"),
        ("f(, a)", "1:3: Syntax error: extraneous input ',' expecting {'[', '{', '(', ')', '.'"),
        ("'  \\xFh '", "1:1: Syntax error: token recognition error at: ''  \\xFh'"),
    ] {
        let issues = parse(text, ALL).unwrap_err().to_string();
        assert!(issues.contains(message), "{text}: {issues}");
    }
    check("a.", "ERROR: <input>:1:3: Syntax error: no viable alternative at input '.'\n | a.\n | ..^");
    let expected = "expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
    check(
        "!!",
        &format!("ERROR: <input>:1:3: Syntax error: extraneous input '<EOF>' {expected}\n | !!\n | ..^"),
    );
    check("!)", &format!("ERROR: <input>:1:2: Syntax error: extraneous input ')' {expected}\n | !)\n | .^"));
    check(
        "-",
        &format!(
            "ERROR: <input>:1:2: Syntax error: no viable alternative at input '-'\n | -\n | .^\n\
             ERROR: <input>:1:2: Syntax error: mismatched input '<EOF>' {expected}\n | -\n | .^"
        ),
    );
    check("if", "ERROR: <input>:1:1: reserved identifier: if\n | if\n | ^");
    check("99999999999999999999", "ERROR: <input>:1:1: invalid int literal\n | 99999999999999999999\n | ^");
    check("'é' + for", "ERROR: <input>:1:7: reserved identifier: for\n | 'é' + for\n | .．....^");
    assert!(parse("a.?b", Syntax::default()).unwrap_err().to_string().contains("unsupported syntax '.?'"));
    assert!(parse("'abc", ALL).unwrap_err().to_string().contains("token recognition error at: ''abc'"));
    let nothing = parse("", ALL).unwrap_err().to_string();
    assert!(nothing.starts_with("ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting"));
    assert!(!nothing.contains('\n'), "{nothing}");
}

#[test]
fn hostile_expressions_are_refused() {
    let refused = |text: String, message: &str| {
        let issues = parse(&text, ALL).unwrap_err().to_string();
        assert!(issues.contains(message), "{issues}");
    };
    refused("(".repeat(50_000), "expression recursion limit exceeded: 250");
    refused("[".repeat(50_000), "expression recursion limit exceeded: 250");
    refused("{1:".repeat(30_000), "expression recursion limit exceeded: 250");
    refused(format!("a{}", ".b".repeat(40_000)), "max recursion depth exceeded");
    refused(format!("1{}", "+1".repeat(40_000)), "max recursion depth exceeded");
    refused(format!("a{}", ".map(x,x)".repeat(10_000)), "max recursion depth exceeded");
    refused(format!("a{}", ".optMap(x,x)".repeat(200)), "expression node limit exceeded");
    refused("a".repeat(100_001), "expression code point size exceeds limit: size: 100001, limit 100000");
    refused("\"".repeat(99_999), "Syntax error");
    assert!(parse(&format!("a{}", "||a".repeat(20_000)), ALL).is_ok());
    assert!(parse(&"!".repeat(99_999), ALL).is_err());
    assert!(parse(&format!("{}1", "-".repeat(99_000)), ALL).is_ok());
}
