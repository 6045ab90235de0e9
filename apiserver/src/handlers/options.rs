//! Options that come in the query of a request, by the fields of their type.

use api::error::Result;
use api::field::{FieldError, Path, go_quote};
use api::{ApiError, Value};
use schema::Ty;
use schema::types::Shape;

use crate::request::Query;

/// What the log of a container is asked for.
const LOG: &str = "PodLogOptions";

/// The options that a query has. Of parameters that repeat, where one is meant, the first counts.
pub(super) fn read(query: &Query, ty: Ty<'_>) -> Result<Value> {
    let mut options = Value::object();
    let fields = ty.as_struct().map_or(&[][..], |s| s.fields.as_slice());
    let own = |name: &str| !matches!(name, "kind" | "apiVersion") && query.has(name);
    for field in fields.iter().filter(|f| own(&f.name)) {
        let name = &*field.name;
        let value: Value = match ty.at(field.ty).shape() {
            Shape::Bool => query.is_true(name).into(),
            Shape::String => query.get(name).into(),
            Shape::Int64 => query.integer(name)?.map_or(Value::Null, Value::from),
            Shape::Time => time(query.get(name))?,
            Shape::List(list) if matches!(ty.at(list.item).shape(), Shape::Int32) => {
                let all = query.all(name).iter().flat_map(|text| text.split(','));
                Value::Array(all.map(port).collect::<Result<Vec<Value>>>()?)
            }
            Shape::List(_) => query.all(name).to_vec().into(),
            _ => continue,
        };
        options.set(&[name], value);
    }
    Ok(options)
}

/// A time; what older clients write for none is Go's zero.
fn time(text: &str) -> Result<Value> {
    const ZERO: &str = "0001-01-01T00:00:00Z";
    if matches!(text, "" | "null") {
        return Ok(ZERO.into());
    }
    let read = schema::decode::time(text).map_err(ApiError::bad_request)?;
    Ok(read.unwrap_or_else(|| ZERO.into()))
}

/// One of several numbers: all that are asked for are ports.
fn port(text: &str) -> Result<Value> {
    let number = text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
    match text.parse::<u16>() {
        Ok(port) if number => Ok(i64::from(port).into()),
        _ => {
            let why = if number { "value out of range" } else { "invalid syntax" };
            let text = go_quote(text);
            Err(ApiError::bad_request(format!(
                "cannot convert to []int32: strconv.ParseUint: parsing {text}: {why}"
            )))
        }
    }
}

/// The options of a log.
pub(super) fn of_log(query: &Query, pod: &str) -> Result<Value> {
    let ty = schema::kind("", "v1", LOG).expect("options of logs have a schema");
    let options = read(query, ty)?;
    match wrong_log(&options).as_slice() {
        [] => Ok(options),
        errors => Err(ApiError::invalid("", LOG, pod, errors)),
    }
}

fn wrong_log(options: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut least = |field: &str, least: i64, why: &str| {
        let given = options.get(field).as_i64();
        errors.extend(given.filter(|n| *n < least).map(|n| FieldError::invalid(&Path::new(field), n, why)));
    };
    least("tailLines", 0, "must be greater than or equal to 0");
    least("limitBytes", 1, "must be greater than 0");
    match options.get("sinceTime").is_null() || options.get("sinceSeconds").is_null() {
        true => least("sinceSeconds", 1, "must be greater than 0"),
        false => {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden(&Path::new("[]"), why));
        }
    }
    if !options.get("stream").is_null() {
        // One of the streams alone is an alpha feature of the API, which is off.
        errors.push(FieldError::forbidden(&Path::new("stream"), "may not be specified"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn queries_are_read_as_options() {
        let check = |kind: &str, query: &str, want: std::result::Result<Value, &str>| {
            let ty = schema::kind("", "v1", kind).unwrap();
            let got = read(&Query::parse(Some(query)), ty).map_err(|e| e.status().message.clone());
            assert_eq!(got, want.map_err(str::to_owned), "{query}");
        };
        let exec = object!({"stdin": true, "tty": false, "container": "c", "command": ["a", "b"]});
        check(
            "PodExecOptions",
            "command=a&command=b&stdin=1&tty=false&container=c&apiVersion=x&other=y",
            Ok(exec),
        );
        check("PodPortForwardOptions", "ports=80&ports=81,82", Ok(object!({"ports": [80, 81, 82]})));
        let bad = |why| Err(why);
        let ports = |query, why| check("PodPortForwardOptions", query, bad(why));
        ports("ports=x", "cannot convert to []int32: strconv.ParseUint: parsing \"x\": invalid syntax");
        ports("ports=+8", "cannot convert to []int32: strconv.ParseUint: parsing \" 8\": invalid syntax");
        ports(
            "ports=80,65536",
            "cannot convert to []int32: strconv.ParseUint: parsing \"65536\": value out of range",
        );
        let log = |query, want| check(LOG, query, want);
        log("tailLines=5&tailLines=x", Ok(object!({"tailLines": 5})));
        log("tailLines=", bad("strconv.ParseInt: parsing \"\": invalid syntax"));
        log("sinceTime=null", Ok(object!({"sinceTime": "0001-01-01T00:00:00Z"})));
        log(
            "sinceTime=now",
            bad(r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#),
        );
    }

    #[test]
    fn logs_are_asked_for_with_sense() {
        let check = |query: &str, want: &str| {
            let got = of_log(&Query::parse(Some(query)), "p").map_err(|e| e.status().message.clone());
            assert_eq!(got.err().unwrap_or_default(), want, "{query}");
        };
        check("tailLines=0&limitBytes=1&sinceSeconds=1", "");
        check(
            "tailLines=-1",
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            "limitBytes=0&sinceSeconds=0&stream=All",
            "PodLogOptions \"p\" is invalid: [limitBytes: Invalid value: 0: must be greater than 0, sinceSeconds: Invalid value: 0: must be greater than 0, stream: Forbidden: may not be specified]",
        );
    }
}
