use super::*;
use crate::decode::{Mode, normalize};

/// Writes `json` of the named type as protobuf, compares the bytes in hexadecimal, and reads them again.
#[track_caller]
fn check(ty: &str, json: &str, want: &str) {
    let ty = crate::named(ty).unwrap();
    let value = normalize(api::json::decode(json.as_bytes()).unwrap().value, ty, Mode::Strict).unwrap().0;
    let bytes = encode(&value, ty);
    let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex.join(""), want.replace(' ', ""), "{json}");
    assert_eq!(decode(&bytes, ty).unwrap().to_string(), value.to_string());
}

#[test]
fn fields_are_written_by_number_and_zeros_too() {
    check("core/v1.ContainerPort", r#"{"containerPort":80}"#, "0a00 1000 1850 2200 2a00");
    check("core/v1.EnvVar", r#"{"name":"a","value":"b"}"#, "0a0161 120162");
    check("core/v1.LocalObjectReference", "{}", "0a00");
    check("core/v1.Volume", r#"{"name":"v","emptyDir":{}}"#, "0a0176 1204 12020a00");
    check("core/v1.Capabilities", r#"{"add":["A","B"]}"#, "0a0141 0a0142");
    check("core/v1.ResourceRequirements", r#"{"limits":{"cpu":"1"}}"#, "0a0a 0a03637075 1203 0a0131");
    check(
        "apps/v1.RollingUpdateDeployment",
        r#"{"maxSurge":"25%","maxUnavailable":2}"#,
        "0a06 0800 1002 1a00 1209 0801 1000 1a03323525",
    );
    check("authentication/v1.UserInfo", r#"{"extra":{"k":["a"]}}"#, "0a00 1200 2208 0a016b 1203 0a0161");
}

#[test]
fn envelopes_hold_what_the_message_does_not() {
    let object = api::json::decode(
        br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"},"data":{"a":"b"}}"#,
    )
    .unwrap()
    .value;
    let lookup = |gv: &str, kind: &str| crate::kind("", gv, kind);
    let ty = lookup("v1", "ConfigMap").unwrap();
    let bytes = encode_object(&object, ty);
    assert_eq!(open(&bytes).unwrap().kind, "ConfigMap");
    assert_eq!(decode_object(&bytes, lookup).unwrap().unwrap().to_string(), object.to_string());
    assert_eq!(decode_object(&bytes, |_, _| None), Ok(None));
    assert_eq!(open(b"{}"), Err(Error::NoMagic));
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let ty = crate::named("core/v1.Pod").unwrap();
    for (bytes, want) in [
        (&[0x0a, 0x05, 0x01][..], Error::Truncated),
        (&[0x0a, 0x02, 0x0a], Error::Truncated),
        (&[0x08, 0x01], Error::Malformed("wrong wire type, expected bytes")),
        (&[0x00, 0x01], Error::Malformed("illegal tag 0")),
        (&[0xff; 11], Error::Malformed("integer overflow")),
    ] {
        assert_eq!(decode(bytes, ty), Err(want), "{bytes:?}");
    }
    let props = crate::named("apiextensions/v1.JSONSchemaProps").unwrap();
    let deep = (0..300).fold(Vec::new(), |inner, _| {
        let mut out = Vec::new();
        wire::bytes(&mut out, 27, &inner);
        out
    });
    assert_eq!(decode(&deep, props), Err(Error::TooDeep));
}
