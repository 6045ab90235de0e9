//! Flags that stand for fields of the configuration file: rows of `data/fields.txt`. What is given of them is laid over the
//! file before it is read, so that a value is judged the same wherever it comes from.

use std::collections::BTreeMap;

use clap::{ArgMatches, Command, Error, FromArgMatches};
use daemon::flags::of_kind;
use serde_json::{Map, Value, json};

use crate::config::KubeletConfiguration;

const TABLE: &str = include_str!("../../data/fields.txt");

/// A row of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    kind: &'static str,
    field: &'static str,
}

fn rows() -> impl Iterator<Item = Row> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut cells = line.split(" | ");
        Some(Row { name: cells.next()?, kind: cells.next()?, field: cells.next()? })
    })
}

/// What the flags stand for when neither they nor a file say anything, as they would be given.
pub(super) fn defaults() -> BTreeMap<&'static str, String> {
    let defaults = serde_json::to_value(KubeletConfiguration::default()).unwrap_or_default();
    let find = |path: &str| path.split('.').try_fold(&defaults, |value, part| value.get(part));
    rows().filter_map(|row| Some((row.name, shown(find(row.field)?, row.kind)))).collect()
}

fn shown(value: &Value, kind: &str) -> String {
    let between = if kind == "thresholds" { '<' } else { '=' };
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(|item| shown(item, "")).collect::<Vec<_>>().join(","),
        Value::Object(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{key}{between}{}", shown(value, "")));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// The flags that were given, each with its values.
#[derive(Clone, Debug, Default)]
pub struct FieldFlags(Vec<(Row, Vec<String>)>);

impl FieldFlags {
    /// Lays the flags over a configuration.
    ///
    /// # Errors
    /// The first value that is not of its flag's type.
    pub fn apply(&self, document: &mut Map<String, Value>) -> Result<(), String> {
        for (row, values) in &self.0 {
            let value = row.read(values).map_err(|why| {
                format!("invalid argument {:?} for --{}: {why}", values.join(","), row.name)
            })?;
            set(document, row.field, row.kind, value);
        }
        Ok(())
    }
}

/// Sets a field by its path. Gates are added to those of the file, every other value takes the place of the file's.
fn set(document: &mut Map<String, Value>, path: &str, kind: &str, value: Value) {
    match path.split_once('.') {
        Some((first, rest)) => {
            let inner = document.entry(first).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            set(inner.as_object_mut().expect("it was just made one"), rest, kind, value);
        }
        None => match (document.get_mut(path).and_then(Value::as_object_mut), value) {
            (Some(known), Value::Object(more)) if kind == "gates" => known.extend(more),
            (_, value) => drop(document.insert(path.to_owned(), value)),
        },
    }
}

impl Row {
    fn read(self, values: &[String]) -> Result<Value, String> {
        let last = values.last().map_or("", String::as_str);
        let parts = || values.iter().flat_map(|text| text.split(',')).filter(|part| !part.is_empty());
        Ok(match self.kind {
            "bool" => boolean(last)?.into(),
            "int" => last.parse::<i64>().map_err(|error| error.to_string())?.into(),
            "strings" => parts().collect(),
            "map" => Value::Object(pairs(parts(), '=')?),
            "gates" => {
                let truth = |(gate, value): (String, Value)| {
                    let value = boolean(value.as_str().unwrap_or_default())?;
                    Ok((gate.trim_start_matches("kube:").to_owned(), value.into()))
                };
                pairs(parts(), '=')?.into_iter().map(truth).collect::<Result<Map<_, _>, String>>()?.into()
            }
            "thresholds" => Value::Object(pairs(parts(), '<')?),
            "headers" => headers(parts())?,
            "taints" => parts().map(taint).collect::<Result<_, _>>()?,
            "memory" => {
                let nodes = values.iter().flat_map(|text| text.split(';')).filter(|node| !node.is_empty());
                nodes.map(memory).collect::<Result<_, _>>()?
            }
            _ => last.into(),
        })
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    daemon::flags::boolean(text).ok_or_else(|| format!("parsing {text:?}: invalid syntax"))
}

fn pairs<'a>(parts: impl Iterator<Item = &'a str>, between: char) -> Result<Map<String, Value>, String> {
    let pair = |part: &'a str| {
        let (key, value) = part
            .split_once(between)
            .ok_or_else(|| format!("malformed pair, expect string{between}string"))?;
        Ok((key.trim().to_owned(), value.trim().into()))
    };
    parts.map(pair).collect()
}

/// `name:value,...`: a name may come several times.
fn headers<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Value, String> {
    let mut all = Map::new();
    for part in parts {
        let (name, value) = part.split_once(':').ok_or("malformed pair, expect string:string")?;
        let values = all.entry(name.trim()).or_insert_with(|| json!([]));
        values.as_array_mut().expect("only lists are put in").push(value.trim().into());
    }
    Ok(all.into())
}

/// `key=value:effect` or `key:effect`.
fn taint(text: &str) -> Result<Value, String> {
    let (pair, effect) = text.rsplit_once(':').ok_or_else(|| format!("invalid taint spec: {text}"))?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(format!("invalid taint effect: {effect}, unsupported taint effect"));
    }
    Ok(match pair.split_once('=') {
        Some((key, value)) if !value.is_empty() => json!({"key": key, "value": value, "effect": effect}),
        found => json!({"key": found.map_or(pair, |(key, _)| key), "effect": effect}),
    })
}

/// `0:memory=1Gi,hugepages-2Mi=2Gi`: what is kept of a NUMA node.
fn memory(text: &str) -> Result<Value, String> {
    let (node, limits) =
        text.split_once(':').ok_or_else(|| format!("the reserved memory has incorrect format {text}"))?;
    let node: u32 =
        node.trim().parse().map_err(|_| format!("failed to convert the NUMA node ID {node:?}"))?;
    Ok(json!({"numaNode": node, "limits": (pairs(limits.split(','), '=')?)}))
}

impl clap::Args for FieldFlags {
    fn augment_args(command: Command) -> Command {
        rows().fold(command, |command, row| {
            command.arg(of_kind(row.name, row.kind, format!("Instead of {} in the file.", row.field)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FieldFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for row in rows() {
            let values: Vec<String> =
                matches.get_many::<String>(row.name).into_iter().flatten().cloned().collect();
            if !values.is_empty() {
                self.0.push((row, values));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        fields: FieldFlags,
    }

    fn laid(words: &[&str], file: Value) -> Result<Value, String> {
        let line = Line::try_parse_from([&["x"], words].concat()).unwrap();
        let mut document = file.as_object().unwrap().clone();
        line.fields.apply(&mut document).map(|()| Value::Object(document))
    }

    #[test]
    fn flags_win_over_the_file() {
        for (words, file, expected) in [
            (vec!["--max-pods=9"], json!({"maxPods": 5, "port": 1}), json!({"maxPods": 9, "port": 1})),
            (
                vec!["--anonymous-auth=false", "--client-ca-file=/ca"],
                json!({"authentication": {"webhook": {"enabled": true}}}),
                json!({"authentication": {
                    "webhook": {"enabled": true}, "anonymous": {"enabled": false}, "x509": {"clientCAFile": "/ca"},
                }}),
            ),
            (
                vec!["--eviction-hard=memory.available<1Gi,nodefs.available<10%"],
                json!({"evictionHard": {"imagefs.available": "15%"}}),
                json!({"evictionHard": {"memory.available": "1Gi", "nodefs.available": "10%"}}),
            ),
            (
                vec!["--feature-gates=A=true,kube:B=false"],
                json!({"featureGates": {"A": false, "C": true}}),
                json!({"featureGates": {"A": true, "B": false, "C": true}}),
            ),
            (
                vec!["--cluster-dns=10.0.0.1,10.0.0.2", "--cluster-dns=10.0.0.3"],
                json!({}),
                json!({"clusterDNS": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]}),
            ),
            (
                vec!["--register-with-taints=a=b:NoSchedule,c:NoExecute"],
                json!({}),
                json!({"registerWithTaints": [
                    {"key": "a", "value": "b", "effect": "NoSchedule"}, {"key": "c", "effect": "NoExecute"},
                ]}),
            ),
            (
                vec![
                    "--reserved-memory=0:memory=1Gi,hugepages-2Mi=4Mi;2:memory=1Gi",
                    "--reserved-memory=1:memory=2Gi",
                ],
                json!({}),
                json!({"reservedMemory": [
                    {"numaNode": 0, "limits": {"memory": "1Gi", "hugepages-2Mi": "4Mi"}},
                    {"numaNode": 2, "limits": {"memory": "1Gi"}},
                    {"numaNode": 1, "limits": {"memory": "2Gi"}},
                ]}),
            ),
            (
                vec!["--manifest-url-header=a:b,a:c"],
                json!({}),
                json!({"staticPodURLHeader": {"a": ["b", "c"]}}),
            ),
        ] {
            assert_eq!(laid(&words, file), Ok(expected), "{words:?}");
        }
    }

    #[test]
    fn values_of_another_type_are_refused() {
        for word in [
            "--max-pods=many",
            "--fail-swap-on=perhaps",
            "--eviction-hard=memory.available",
            "--register-with-taints=a=b:Never",
            "--reserved-memory=memory=1Gi",
            "--feature-gates=A=maybe",
        ] {
            let error = laid(&[word], json!({})).unwrap_err();
            let flag = word.split('=').next().unwrap();
            assert!(error.starts_with("invalid argument") && error.contains(flag), "{error}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_knows_its_types() {
        let mut before = "";
        for row in rows() {
            assert!(before < row.name, "{}", row.name);
            before = row.name;
            let known = [
                "text",
                "bool",
                "int",
                "strings",
                "map",
                "gates",
                "thresholds",
                "headers",
                "taints",
                "memory",
            ];
            assert!(known.contains(&row.kind), "{}", row.name);
        }
    }
}
