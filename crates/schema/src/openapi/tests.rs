use super::*;

fn widget() -> Value {
    object!({"type": "object", "properties": {
        "spec": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"size": {"type": "integer"}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "nullable": true}}},
    }})
}

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn rows(schema: &Value) -> Vec<Resource<'_>> {
    let status = ["get", "patch", "update"].as_slice();
    vec![
        Resource {
            version: "v1",
            name: "pods",
            kind: "Pod",
            namespaced: true,
            verbs: &VERBS,
            ..Resource::default()
        },
        Resource {
            version: "v1",
            name: "pods/status",
            kind: "Pod",
            namespaced: true,
            verbs: status,
            ..Resource::default()
        },
        Resource {
            group: "example.com",
            version: "v1",
            name: "widgets",
            kind: "Widget",
            namespaced: true,
            verbs: &VERBS,
            custom: true,
            schema: Some(schema),
            selectable: vec!["spec.size"],
            ..Resource::default()
        },
        Resource {
            group: "example.com",
            version: "v1",
            name: "widgets/scale",
            kind: "Scale",
            of: Some(("autoscaling", "v1")),
            namespaced: true,
            verbs: status,
            custom: true,
            ..Resource::default()
        },
    ]
}

#[test]
fn kinds_are_found_where_kubectl_looks_for_them() {
    let schema = widget();
    let doc = v3("", "v1", &rows(&schema));
    let patch = doc.at(&["paths", "/api/v1/namespaces/{namespace}/pods/{name}", "patch"]);
    assert_eq!(patch.at(&["x-kubernetes-group-version-kind", "kind"]), &Value::from("Pod"));
    assert!(patch.array_at(&["parameters"]).iter().any(|p| p.str_at(&["name"]) == "fieldValidation"));
    let container = doc.at(&["components", "schemas", "io.k8s.api.core.v1.Container"]);
    assert_eq!(container.array_at(&["required"]), ["name".into()]);
    let ports = container.at(&["properties", "ports"]);
    assert_eq!(ports.get("x-kubernetes-patch-merge-key"), &Value::from("containerPort"));
    assert!(ports.str_at(&["description"]).starts_with("List of ports to expose"));
}

#[test]
fn custom_resources_are_published_too() {
    let schema = widget();
    let doc = v3("example.com", "v1", &rows(&schema));
    let widget = doc.at(&["components", "schemas", "com.example.v1.Widget"]);
    assert_eq!(widget.at(&["properties", "spec", "properties", "size", "type"]), &Value::from("integer"));
    assert!(!widget.at(&["properties", "metadata", "allOf"]).is_null());
    let spec = widget.at(&["properties", "spec"]);
    assert_eq!(spec.get("required").to_string(), r#"["kind","apiVersion"]"#);
    assert!(!spec.at(&["properties", "metadata", "allOf"]).is_null());
    assert_eq!(widget.get("x-kubernetes-selectable-fields").to_string(), r#"[{"fieldPath":"spec.size"}]"#);
    let doc = v2(&rows(&schema));
    let free = doc.at(&["definitions", "com.example.v1.Widget", "properties", "spec", "properties", "free"]);
    assert_eq!(free.to_string(), r#"{"x-kubernetes-preserve-unknown-fields":true}"#);
    assert!(doc.at(&["definitions"]).as_object().unwrap().contains_key("com.example.v1.WidgetList"));
}

#[test]
fn custom_resources_take_what_their_server_takes() {
    let schema = widget();
    let doc = v3("example.com", "v1", &rows(&schema));
    assert_eq!(doc.at(&["info"]).to_string(), r#"{"title":"Kubernetes CRD Swagger","version":"v0.1.0"}"#);
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().unwrap().iter().map(|(key, _)| key.to_string()).collect()
    };
    let base = "/apis/example.com/v1";
    let in_namespace = format!("{base}/namespaces/{{namespace}}/widgets");
    let want = [
        in_namespace.clone(),
        format!("{in_namespace}/{{name}}"),
        format!("{in_namespace}/{{name}}/scale"),
        format!("{base}/widgets"),
    ];
    assert_eq!(keys(doc.get("paths")), want);
    let item = doc.at(&["paths", &want[1]]);
    let media = ["application/json", "application/yaml"];
    assert_eq!(keys(item.at(&["get", "responses", "200", "content"])), media);
    assert_eq!(keys(item.at(&["put", "requestBody", "content"])), media);
    let patches =
        ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    assert_eq!(keys(item.at(&["patch", "requestBody", "content"])), patches);
    assert_eq!(keys(item.at(&["patch", "responses"])), ["200", "401"]);
    let scale = doc.at(&["paths", &want[2], "get", "x-kubernetes-group-version-kind"]);
    assert_eq!(scale.to_string(), r#"{"group":"example.com","kind":"Widget","version":"v1"}"#);
}

#[test]
fn the_protobuf_form_holds_the_definitions() {
    let schema = widget();
    let bytes = gnostic(&v2(&rows(&schema)));
    let name = b"io.k8s.api.core.v1.PodSpec";
    assert!(bytes.windows(name.len()).any(|w| w == name));
    assert_eq!(&bytes[..5], b"\x0a\x032.0");
}
