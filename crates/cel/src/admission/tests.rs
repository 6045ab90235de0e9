use api::{Value, object};

use super::{Compiler, Evaluator, Inputs, Scope};
use crate::env::Version;
use crate::eval::Limits;
use crate::library::authz::{Attributes, Authorizer, Decision};
use crate::types::Type;

/// Allows deleting pods.
struct Deleter;

impl Authorizer for Deleter {
    fn authorize(&self, asked: &Attributes) -> Decision {
        Decision { allowed: asked.verb == "delete" && &*asked.resource == "pods", ..Decision::default() }
    }
}

const ALL: Scope = Scope { params: true, authorizer: true, variables: true, patches: true };

fn pod() -> Value {
    object!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [{"name": "a", "image": "reg/a:1"}, {"name": "b", "image": "b"}]}
    })
}

fn run(compiler: &Compiler, expression: &str) -> (String, u64) {
    let object = pod();
    let request = object!({"operation": "CREATE", "userInfo": {"username": "u", "groups": ["g"]}});
    let params = object!({"spec": {"max": 1}});
    let resource = Attributes { resource: "pods".into(), name: "p".into(), ..Attributes::default() };
    let inputs = Inputs {
        object: Some(&object),
        request: Some(&request),
        params: Some(&params),
        authorizer: Some((&Deleter, resource)),
        ..Inputs::default()
    };
    let program = match compiler.compile(expression, &[]) {
        Ok(program) => program,
        Err(e) => return (e, 0),
    };
    let (outcome, cost) = Evaluator::new(compiler, inputs, Limits::default()).evaluate(&program);
    (outcome.map_or_else(|e| e.to_string(), |v| v.to_string()), cost)
}

#[test]
fn expressions_see_the_request() {
    let compiler = Compiler::new(ALL, Version::STORED);
    for expression in [
        "object.metadata.name == 'p' && oldObject == null && namespaceObject == null",
        "request.operation == 'CREATE' && 'g' in request.userInfo.groups",
        "size(object.spec.containers) > params.spec.max",
        "authorizer.requestResource.check('delete').allowed() && !authorizer.requestResource.check('get').allowed()",
        "authorizer.group('').resource('pods').check('delete').allowed()",
        "!has(object.spec.nodeName) && object.?spec.?nodeName.orValue('none') == 'none'",
        "object.spec.containers.all(c, has(c.image)) && object.spec.containers.exists(c, c.image.contains('/'))",
    ] {
        assert_eq!(run(&compiler, expression).0, "true", "{expression}");
    }
    let plain = Compiler::new(Scope::default(), Version::STORED);
    for name in ["params", "authorizer", "variables.x"] {
        assert!(run(&plain, name).0.contains("undeclared reference to"), "{name}");
    }
    assert!(run(&compiler, "request.operatoin == ''").0.contains("undefined field 'operatoin'"));
}

#[test]
fn results_have_the_types_that_are_wanted() {
    let compiler = Compiler::new(ALL, Version::STORED);
    let compile = |expression: &str, returns: &[Type]| compiler.compile(expression, returns).err();
    assert_eq!(compile("1", &[Type::Bool]).as_deref(), Some("must evaluate to bool but got int"));
    let wanted = "must evaluate to one of [string null_type] but got dyn";
    assert_eq!(compile("object.x", &[Type::String, Type::Null]).as_deref(), Some(wanted));
    assert_eq!(compile("true", &[Type::Bool]), None);
    let list = Type::list(Type::object("JSONPatch"));
    assert_eq!(compile("[JSONPatch{op: 'remove', path: '/a'}]", &[list]), None);
    assert!(compile("(", &[]).unwrap().starts_with("compilation failed: ERROR: <input>:1:2: Syntax error:"));
}

#[test]
fn expressions_are_checked_against_the_type_of_the_object() {
    let schema = object!({"type": "object", "properties": {
        "kind": {"type": "string"}, "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}});
    let decl = crate::decl::Decl::from_schema(&schema, "Thing", true).unwrap();
    let mut typed = Compiler::new(ALL, Version::STORED).typed(Some(decl.into()), None);
    typed.declare("n", "object.spec.replicas").unwrap();
    assert_eq!(typed.check("object.spec.replicas > 1 && variables.n == 1 && params.x == 1"), Ok(()));
    let told = |expression: &str| typed.check(expression).unwrap_err().to_string();
    let want = "ERROR: <input>:1:12: undefined field 'replics'\n | object.spec.replics > 1\n | ...........^";
    assert_eq!(told("object.spec.replics > 1"), want);
    assert!(told("variables.n == 'a'").contains("found no matching overload"));
}

#[test]
fn variables_are_evaluated_once_and_when_needed() {
    let mut compiler = Compiler::new(ALL, Version::STORED);
    compiler.declare("images", "object.spec.containers.map(c, c.image)").unwrap();
    compiler.declare("count", "size(variables.images)").unwrap();
    compiler.declare("broken", "object.spec.nope").unwrap();
    assert!(compiler.declare("wrong", "1 + ''").unwrap_err().contains("found no matching overload"));
    assert_eq!(run(&compiler, "variables.count + variables.count == 4").0, "true");
    assert_eq!(run(&compiler, "has(variables.count) && variables.images[0] == 'reg/a:1'").0, "true");
    let (shown, _) = run(&compiler, "variables.broken == 1");
    assert_eq!(shown, "composited variable \"broken\" fails to evaluate: no such key: nope");
    let (shown, _) = run(&compiler, "variables.wrong == 1");
    assert!(
        shown.starts_with("composited variable \"wrong\" fails to compile: compilation failed: "),
        "{shown}"
    );
    assert!(run(&compiler, "variables.missing == 1").0.contains("undefined field 'missing'"));
    // The second use costs what it takes to look at the variable.
    let (once, twice) = (
        run(&compiler, "variables.count == 2").1,
        run(&compiler, "variables.count == 2 && variables.count == 2").1,
    );
    assert_eq!(twice - once, 3);
    assert!(once > 30, "{once}");
}

#[test]
fn mutations_are_made_of_objects() {
    let compiler = Compiler::new(ALL, Version::STORED);
    let export = |expression: &str| {
        let object = pod();
        let inputs = Inputs { object: Some(&object), ..Inputs::default() };
        let program = compiler.compile(expression, &[]).unwrap();
        let (outcome, _) = Evaluator::new(&compiler, inputs, Limits::default()).evaluate(&program);
        let v = outcome.unwrap();
        if expression.starts_with('[') { v.to_json_patch() } else { v.to_configuration() }
            .map(|v| v.to_string())
    };
    let shown = export(
        "Object{metadata: Object.metadata{labels: {'a': object.metadata.name}}, spec: Object.spec{?nodeName: optional.none()}}",
    );
    assert_eq!(shown.as_deref(), Ok(r#"{"metadata":{"labels":{"a":"p"}},"spec":{}}"#));
    let shown =
        export("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 1}]");
    assert_eq!(shown.as_deref(), Ok(r#"[{"op":"add","path":"/metadata/labels/a~1b","value":1}]"#));
    let wrong = "type mismatch: unexpected type name \"Object.metadata\", expected \"Object.spec\", which matches field name path from root \
                 Object type";
    assert_eq!(export("Object{spec: Object.metadata{}}"), Err(wrong.to_owned()));
    let nested = "[JSONPatch{op: 'add', path: '/a', from: '', value: Object.spec{x: Object.spec.x{y: 1}}}, JSONPatch{}]";
    let want = r#"[{"op":"add","path":"/a","value":{"x":{"y":1}}},{"op":"","path":""}]"#;
    assert_eq!(export(nested).as_deref(), Ok(want));
    assert!(export("[JSONPatch{value: Object.spec{x: Object.y{}}}]").is_err());
    assert!(run(&compiler, "JSONPatch{opp: 'add'}").0.contains("undefined field 'opp'"));
}
